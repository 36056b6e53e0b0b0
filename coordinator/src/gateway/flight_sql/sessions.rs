//! Who is calling, and in which session.
//!
//! In: the headers of a call. Out: a [`Caller`], or a refusal: no call is anonymous.
//! A session is found by the cookie `arrow_flight_session_id` that the first answer sets (JDBC and ODBC send it back, ADBC does when its cookie
//! middleware is switched on), else by the connection and the principal. It lives while one of its connections does, and for
//! [`COOKIE_TIME_OUT`] afterwards if its client keeps cookies.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use minerva_policy::Principal;
use tonic::{
    Extensions, Status,
    metadata::{Ascii, MetadataMap, MetadataValue},
};

use super::{
    connection::Peer,
    handles::{Handle, locked},
    status::{internal, status_of, unauthenticated, unknown},
};
use crate::{
    engine::Engine,
    gateway::auth::{Credentials, Presented},
    queries::Client,
    session::Session,
};

/// The cookie, named as other Flight servers name it.
const COOKIE: &str = "arrow_flight_session_id";

/// How long a session outlives its last connection, for clients that come back with its cookie.
const COOKIE_TIME_OUT: Duration = Duration::from_secs(3600);

/// The header that names the user to act as.
const ACT_AS: &str = "x-minerva-user";

/// The principal of a call and the session it speaks in.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) principal: Arc<Principal>,
    pub(super) client: Arc<ClientSession>,
    pub(super) session: Arc<Session>,
}

impl Caller {
    /// The caller that the front has put into a request.
    pub(super) fn of<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        let caller = request.extensions().get::<Self>().cloned();
        caller.ok_or_else(|| {
            internal(
                "a call arrived without its caller",
                &"the front did not authenticate it",
            )
        })
    }
}

/// A session as one client sees it.
#[derive(Debug)]
pub(super) struct ClientSession {
    id: Handle,
    owner: String,
    client: Client,
    session: Mutex<Arc<Session>>,
    peers: Mutex<Vec<Weak<Peer>>>,
    keeps_cookies: AtomicBool,
    last_call: Mutex<Instant>,
    /// How many statements are prepared in it.
    pub(super) prepared: AtomicUsize,
}

impl ClientSession {
    pub(super) fn id(&self) -> Handle {
        self.id
    }

    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    /// The engine's session for the principal as it is now. When its tags or attributes have changed, the session is made anew with the
    /// same current catalog, schema and properties.
    pub(super) async fn session(
        &self,
        engine: &Arc<Engine>,
        principal: &Arc<Principal>,
    ) -> Result<Arc<Session>, Status> {
        let known = Arc::clone(&locked(&self.session));
        if same(known.principal(), principal) {
            return Ok(known);
        }
        let renewed = engine.session(Arc::clone(principal), self.client.clone());
        if let Some(catalog) = known.catalog_name() {
            renewed.set_catalog(Some(&catalog)).await.map_err(status_of)?;
        }
        if let Some(schema) = known.schema_name() {
            renewed.set_schema(Some(&schema)).await.map_err(status_of)?;
        }
        renewed.take_over_properties(&known);
        *locked(&self.session) = Arc::clone(&renewed);
        Ok(renewed)
    }

    fn called_by(&self, peer: &Arc<Peer>) {
        *locked(&self.last_call) = Instant::now();
        let mut peers = locked(&self.peers);
        if !peers.iter().any(|known| known.as_ptr() == Arc::as_ptr(peer)) {
            peers.push(Arc::downgrade(peer));
        }
    }

    /// Whether nobody can come back to this session.
    fn is_over(&self, now: Instant) -> bool {
        let mut peers = locked(&self.peers);
        peers.retain(|peer| peer.strong_count() > 0);
        if !peers.is_empty() {
            return false;
        }
        let idle = now.saturating_duration_since(*locked(&self.last_call));
        !self.keeps_cookies.load(Ordering::Relaxed) || idle > COOKIE_TIME_OUT
    }
}

fn same(one: &Arc<Principal>, other: &Arc<Principal>) -> bool {
    Arc::ptr_eq(one, other) || one == other
}

/// Every session of this door.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    sessions: Mutex<HashMap<Handle, Arc<ClientSession>>>,
}

/// What a call may do, and the cookie to set with its answer.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) caller: Caller,
    pub(super) cookie: Option<MetadataValue<Ascii>>,
}

impl Sessions {
    /// Authenticates a call and finds or makes its session.
    pub(super) async fn admit(
        &self,
        engine: &Arc<Engine>,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<Admitted, Status> {
        let peer = Peer::of(extensions)
            .ok_or_else(|| internal("a call arrived without its connection", &"no peer in the request"))?;
        let presented = presented(credentials_of(metadata)?, metadata, &peer, extensions)?;
        let admitted = engine.admit(&presented).await;
        let principal = admitted
            .inspect_err(|error| engine.attempted(&client(metadata, &peer), &presented, error))
            .map_err(status_of)?;
        if let Some(wanted) = metadata.get("cluster-name") {
            engine
                .serves(&String::from_utf8_lossy(wanted.as_bytes()))
                .map_err(status_of)?;
        }
        let (client, is_new) = match cookie_of(metadata) {
            Some(cookie) => self.by_cookie(engine, &principal, &peer, metadata, &cookie)?,
            None => self.by_connection(engine, &principal, &peer, metadata),
        };
        client.called_by(&peer);
        let session = client.session(engine, &principal).await?;
        let cookie = if is_new { Some(set_cookie(client.id)?) } else { None };
        Ok(Admitted {
            caller: Caller {
                principal,
                client,
                session,
            },
            cookie,
        })
    }

    fn by_cookie(
        &self,
        engine: &Arc<Engine>,
        principal: &Arc<Principal>,
        peer: &Arc<Peer>,
        metadata: &MetadataMap,
        cookie: &str,
    ) -> Result<(Arc<ClientSession>, bool), Status> {
        let known = Handle::read_hex(cookie).and_then(|id| locked(&self.sessions).get(&id).cloned());
        if let Some(known) = known.filter(|known| known.owner == principal.full_name()) {
            known.keeps_cookies.store(true, Ordering::Relaxed);
            return Ok((known, false));
        }
        // The client is told once that its settings are gone; afterwards it gets the session of its connection and that session's cookie.
        if peer.loses(cookie) {
            let mut status = unknown(
                "the session has ended: it was idle for too long or the server was restarted; \
                 its current catalog, schema and prepared statements are gone, connect or try again",
            );
            status.metadata_mut().insert("set-cookie", clear_cookie());
            return Err(status);
        }
        let (client, _) = self.by_connection(engine, principal, peer, metadata);
        Ok((client, true))
    }

    fn by_connection(
        &self,
        engine: &Arc<Engine>,
        principal: &Arc<Principal>,
        peer: &Arc<Peer>,
        metadata: &MetadataMap,
    ) -> (Arc<ClientSession>, bool) {
        let mut on_connection = locked(&peer.sessions);
        if let Some(known) = on_connection.get(principal.full_name().as_ref()) {
            return (Arc::clone(known), false);
        }
        let client = client(metadata, peer);
        let made = Arc::new(ClientSession {
            id: Handle::random(),
            owner: principal.full_name().into_owned(),
            session: Mutex::new(engine.session(Arc::clone(principal), client.clone())),
            client,
            peers: Mutex::default(),
            keeps_cookies: AtomicBool::new(false),
            last_call: Mutex::new(Instant::now()),
            prepared: AtomicUsize::new(0),
        });
        locked(&self.sessions).insert(made.id, Arc::clone(&made));
        on_connection.insert(made.owner.clone(), Arc::clone(&made));
        (made, true)
    }

    /// Ends a session because its client said so.
    pub(super) fn close(&self, client: &ClientSession) {
        locked(&self.sessions).remove(&client.id);
        for peer in locked(&client.peers).iter().filter_map(Weak::upgrade) {
            let mut on_connection = locked(&peer.sessions);
            if on_connection
                .get(&client.owner)
                .is_some_and(|known| known.id == client.id)
            {
                on_connection.remove(&client.owner);
            }
        }
    }

    /// Ends the sessions that nobody can come back to.
    pub(super) fn sweep(&self, now: Instant) -> Vec<Handle> {
        let mut sessions = locked(&self.sessions);
        sessions
            .extract_if(|_, client| client.is_over(now))
            .map(|(id, _)| id)
            .collect()
    }
}

/// Everything that a call shows of who makes it.
pub(super) fn presented(
    credentials: Option<Credentials>,
    metadata: &MetadataMap,
    peer: &Peer,
    extensions: &Extensions,
) -> Result<Presented, Status> {
    let certificate = peer.certificate(extensions);
    if credentials.is_none() && certificate.is_none() {
        return Err(unauthenticated(
            "the call has no credentials; expected the header `authorization` with a user and API key (Basic), an API key or a token (Bearer), \
             or a client certificate",
        ));
    }
    let act_as = match metadata.get(ACT_AS) {
        Some(user) => Some(
            user.to_str()
                .map_err(|_| unauthenticated("the header `x-minerva-user` is not plain text"))?
                .to_owned(),
        ),
        None => None,
    };
    Ok(Presented {
        credentials,
        address: Some(peer.address.ip()),
        certificate,
        act_as,
    })
}

/// Who sends a call, as records have it.
pub(super) fn client(metadata: &MetadataMap, peer: &Peer) -> Client {
    let source = metadata
        .get("user-agent")
        .and_then(|agent| agent.to_str().ok())
        .map(str::to_owned);
    Client {
        door: "flight",
        address: peer.address.to_string(),
        source,
    }
}

/// The credentials of a call: `authorization` with Basic or Bearer, or the header of Flight's first handshake; none without either.
pub(super) fn credentials_of(metadata: &MetadataMap) -> Result<Option<Credentials>, Status> {
    if let Some(header) = metadata.get("authorization") {
        let header = header
            .to_str()
            .map_err(|_| unauthenticated("the header `authorization` is not plain text"))?;
        return Credentials::from_header(header).map(Some).map_err(status_of);
    }
    if let Some(token) = metadata.get_bin("auth-token-bin") {
        let token = token
            .to_bytes()
            .ok()
            .and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
        return token
            .map(|token| Some(Credentials::Bearer(token)))
            .ok_or_else(|| unauthenticated("the header `auth-token-bin` is no token"));
    }
    Ok(None)
}

/// The session's cookie among all cookies of a call.
fn cookie_of(metadata: &MetadataMap) -> Option<String> {
    let headers = metadata
        .get_all("cookie")
        .into_iter()
        .filter_map(|header| header.to_str().ok());
    let cookies = headers.flat_map(|header| header.split(';'));
    let ours = cookies
        .filter_map(|cookie| cookie.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE);
    ours.map(|(_, value)| value.trim().trim_matches('"').to_owned())
        .filter(|value| !value.is_empty())
}

fn set_cookie(id: Handle) -> Result<MetadataValue<Ascii>, Status> {
    let text = format!("{COOKIE}={}", id.hex());
    MetadataValue::try_from(text).map_err(|error| internal("a session's cookie cannot be set", &error))
}

/// Tells the client to forget its cookie.
pub(super) fn clear_cookie() -> MetadataValue<Ascii> {
    MetadataValue::from_static("arrow_flight_session_id=; Max-Age=0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        for (name, value) in pairs {
            metadata.append(*name, value.parse().unwrap());
        }
        metadata
    }

    #[test]
    fn basic_with_and_without_padding_and_bearer_are_understood() {
        for header in ["Basic amFuZTpzM2NyZXQ6eA==", "basic amFuZTpzM2NyZXQ6eA"] {
            let Some(Credentials::Basic { user, password }) =
                credentials_of(&headers(&[("authorization", header)])).unwrap()
            else {
                panic!("{header} is Basic");
            };
            assert_eq!((user.as_str(), password.as_str()), ("jane", "s3cret:x"));
        }
        let found = credentials_of(&headers(&[("authorization", "Bearer mk_123")])).unwrap();
        assert!(matches!(found, Some(Credentials::Bearer(token)) if token == "mk_123"));
    }

    #[test]
    fn anything_else_is_refused_without_repeating_it() {
        for header in [
            "",
            "Basic",
            "Basic !!!",
            "Basic amFuZQ==",
            "Bearer ",
            "Digest c2VjcmV0",
            "c2VjcmV0",
        ] {
            let refused = credentials_of(&headers(&[("authorization", header)])).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{header}");
            assert!(!refused.message().contains("c2VjcmV0"));
        }
        assert!(credentials_of(&MetadataMap::new()).unwrap().is_none());
        let peer = Peer::new(([127, 0, 0, 1], 1).into());
        let refused = presented(None, &MetadataMap::new(), &peer, &Extensions::default()).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let id = Handle::random();
        let set = set_cookie(id).unwrap();
        let sent = format!("a=b; {}; c=d", set.to_str().unwrap());
        assert_eq!(
            cookie_of(&headers(&[("cookie", "x=y"), ("cookie", &sent)])),
            Some(id.hex())
        );
        assert_eq!(cookie_of(&headers(&[("cookie", "arrow_flight_session_id=")])), None);
        assert_eq!(cookie_of(&MetadataMap::new()), None);
    }
}
