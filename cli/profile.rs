//! Profiles: servers, and who one is there, in a file that only its owner can read.
//!
//! In: `minerva/profiles` in the user's configuration folder; sections `[name]` with lines `server = HOST:PORT`. Out: one [`Profile`].
//! A file that others can read is refused, for it holds API keys. Deliberately absent: writing it, and deciding what flags win over.

use std::{
    collections::BTreeMap,
    env, fs,
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::failure::Failure;

/// The profile that is taken when none is named.
const DEFAULT: &str = "default";

/// Where to connect and as whom; what is not said is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) server: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) tls_ca: Option<PathBuf>,
    pub(crate) catalog: Option<String>,
    pub(crate) schema: Option<String>,
}

/// What a line may set.
const KEYS: &[&str] = &["catalog", "key", "schema", "server", "tls-ca", "user"];

impl Profile {
    /// The profile of a name; without one, `default` where there is one.
    pub(crate) fn load(name: Option<&str>) -> Result<Self, Failure> {
        let path = path()
            .ok_or_else(|| Failure::Usage("there is no folder for profiles; set HOME or XDG_CONFIG_HOME".to_owned()));
        match path {
            Ok(path) => Self::load_from(&path, name).map_err(Failure::Usage),
            Err(failure) if name.is_some() => Err(failure),
            Err(_) => Ok(Self::default()),
        }
    }

    fn load_from(path: &Path, name: Option<&str>) -> Result<Self, String> {
        let shown = path.display();
        let mode = match fs::metadata(path) {
            Ok(metadata) => metadata.mode(),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return match name {
                    None => Ok(Self::default()),
                    Some(name) => Err(format!("there is no profile `{name}`: `{shown}` does not exist")),
                };
            }
            Err(error) => return Err(format!("the profiles in `{shown}` cannot be read: {error}")),
        };
        if mode & 0o077 != 0 {
            return Err(format!(
                "the profiles in `{shown}` can be read by others (mode {:04o}), and they hold API keys; run `chmod 600 {shown}`",
                mode & 0o7777
            ));
        }
        let text =
            fs::read_to_string(path).map_err(|error| format!("the profiles in `{shown}` cannot be read: {error}"))?;
        let mut profiles = parse(&text).map_err(|(line, message)| format!("{shown}:{line}: {message}"))?;
        match (profiles.remove(name.unwrap_or(DEFAULT)), name) {
            (Some(profile), _) => Ok(profile),
            (None, None) => Ok(Self::default()),
            (None, Some(name)) => {
                let names: Vec<String> = profiles.keys().map(|name| format!("`{name}`")).collect();
                let names = if names.is_empty() {
                    "none".to_owned()
                } else {
                    names.join(", ")
                };
                Err(format!("there is no profile `{name}` in `{shown}`; there are: {names}"))
            }
        }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let (place, value) = match key {
            "catalog" => (&mut self.catalog, value),
            "key" => (&mut self.key, value),
            "schema" => (&mut self.schema, value),
            "server" => (&mut self.server, value),
            "user" => (&mut self.user, value),
            "tls-ca" => {
                return match self.tls_ca.replace(PathBuf::from(value)) {
                    None => Ok(()),
                    Some(_) => Err(format!("`{key}` is set twice")),
                };
            }
            _ => {
                let closest = KEYS.iter().min_by_key(|known| strsim::damerau_levenshtein(known, key));
                let closest = closest.filter(|known| strsim::damerau_levenshtein(known, key) <= 2);
                return Err(match closest {
                    Some(closest) => format!("unknown key `{key}`; did you mean `{closest}`?"),
                    None => format!("unknown key `{key}`; expected one of {}", KEYS.join(", ")),
                });
            }
        };
        match place.replace(value.to_owned()) {
            None => Ok(()),
            Some(_) => Err(format!("`{key}` is set twice")),
        }
    }
}

/// Where the profiles are.
fn path() -> Option<PathBuf> {
    let folder = env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|folder| folder.is_absolute())
        .or_else(|| Some(env::home_dir()?.join(".config")))?;
    Some(folder.join("minerva/profiles"))
}

/// All profiles of a text; else the line that is wrong, from 1, and why.
fn parse(text: &str) -> Result<BTreeMap<String, Profile>, (usize, String)> {
    let mut profiles: BTreeMap<String, Profile> = BTreeMap::new();
    let mut current: Option<String> = None;
    for (index, line) in text.lines().enumerate() {
        let wrong = |message: String| (index + 1, message);
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            let name = rest.strip_suffix(']').map(str::trim).filter(|name| !name.is_empty());
            let name = name.ok_or_else(|| wrong("expected a section like `[default]`".to_owned()))?;
            if profiles.insert(name.to_owned(), Profile::default()).is_some() {
                return Err(wrong(format!("the profile `{name}` is there twice")));
            }
            current = Some(name.to_owned());
            continue;
        }
        // The line itself is not shown: it may hold a key.
        let (key, value) = line
            .split_once('=')
            .ok_or_else(|| wrong("expected `key = value` or a section like `[default]`".to_owned()))?;
        let (key, value) = (key.trim(), value.trim());
        if value.is_empty() {
            return Err(wrong(format!("`{key}` has no value")));
        }
        let profile = current.as_ref().and_then(|name| profiles.get_mut(name));
        let profile = profile.ok_or_else(|| wrong(format!("`{key}` is in no section; begin with `[default]`")))?;
        profile.set(key, value).map_err(wrong)?;
    }
    Ok(profiles)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const TEXT: &str = "# mine\n[default]\nserver = db.example:7433\nuser=jane\nkey = a=b\n\n[ there ]\ntls-ca = /etc/ca.pem\ncatalog = air\nschema = nyc\n";

    fn load(text: &str, mode: u32, name: Option<&str>) -> Result<Profile, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("profiles");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        Profile::load_from(&path, name)
    }

    #[test]
    fn profiles_are_found_by_name() {
        let default = load(TEXT, 0o600, None).unwrap();
        assert_eq!(default.server.as_deref(), Some("db.example:7433"));
        assert_eq!(
            (default.user.as_deref(), default.key.as_deref()),
            (Some("jane"), Some("a=b"))
        );
        let there = load(TEXT, 0o400, Some("there")).unwrap();
        assert_eq!(there.tls_ca.as_deref(), Some(Path::new("/etc/ca.pem")));
        assert_eq!(
            (there.catalog.as_deref(), there.schema.as_deref()),
            (Some("air"), Some("nyc"))
        );
        assert_eq!(load("[x]\n", 0o600, None), Ok(Profile::default()));
        assert_eq!(Profile::load_from(Path::new("/no/such"), None), Ok(Profile::default()));
    }

    #[test]
    fn what_is_wrong_is_said_without_a_key() {
        for (text, mode, name, words) in [
            (TEXT, 0o644, None, "can be read by others (mode 0644)"),
            (TEXT, 0o660, None, "chmod 600"),
            (TEXT, 0o600, Some("nowhere"), "there are: `default`, `there`"),
            (
                "[default]\nsever = x\n",
                0o600,
                None,
                "profiles:2: unknown key `sever`; did you mean `server`?",
            ),
            ("[default]\nhunting = x\n", 0o600, None, "expected one of catalog, key"),
            (
                "[default]\nuser = a\nuser = b\n",
                0o600,
                None,
                ":3: `user` is set twice",
            ),
            ("[a]\n[a]\n", 0o600, None, "there twice"),
            ("user = a\n", 0o600, None, "begin with `[default]`"),
            ("[default]\nk3y\n", 0o600, None, "expected `key = value`"),
            ("[default]\nkey =\n", 0o600, None, "`key` has no value"),
            ("[default\n", 0o600, None, "expected a section"),
        ] {
            let message = load(text, mode, name).unwrap_err();
            assert!(message.contains(words), "{message}");
            assert!(!message.contains("k3y") && !message.contains("a=b"), "{message}");
        }
        let message = Profile::load_from(Path::new("/no/such"), Some("x")).unwrap_err();
        assert!(message.contains("does not exist"), "{message}");
    }
}
