//! Key sets that are fetched from a URL, and kept.
//!
//! In: the URLs that providers name. Out: the keys of the last good answer. They are fetched at the start and every [`FETCH_EVERY`] in the
//! background; a token that names an unknown key has them fetched at once, at most every [`AT_MOST_EVERY`] whoever asks. When fetching fails,
//! the last good keys hold for [`KEPT_FOR`], then none: a coordinator that cannot hear of a withdrawn key must not trust it for ever.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use minerva_resources::{Jwk, Jwks, KeySource, LARGEST_KEY_SET, ResourceSet};
use reqwest::{Certificate, Client, redirect::Policy};

/// How often keys are fetched without being asked for.
const FETCH_EVERY: Duration = Duration::from_secs(300);
/// How soon after a failure it is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(15);
/// How often tokens may have keys fetched.
const AT_MOST_EVERY: Duration = Duration::from_secs(10);
/// How long keys hold after the last good answer.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);
/// How long connecting, and the whole answer, may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Where keys come from: a URL, and the authorities to trust there.
type Place = (String, Option<String>);

/// The keys of all URLs.
#[derive(Debug, Default)]
pub(crate) struct FetchedKeys {
    sources: Mutex<HashMap<Place, Arc<Source>>>,
    version: AtomicU64,
}

#[derive(Debug, Default)]
struct Source {
    state: RwLock<State>,
    /// Held while fetching, so that many who wait cause one request.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    keys: Arc<Vec<Jwk>>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
}

impl Source {
    fn tried(&self) -> Option<Instant> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).tried
    }
}

impl FetchedKeys {
    /// The keys of a place, if there are any that still hold.
    pub(crate) fn keys(&self, url: &str, authorities: Option<&str>, now: Instant) -> Option<Arc<Vec<Jwk>>> {
        let source = self.source(url, authorities);
        let state = source.state.read().unwrap_or_else(PoisonError::into_inner);
        let fetched = state.fetched?;
        (now.saturating_duration_since(fetched) < KEPT_FOR).then(|| Arc::clone(&state.keys))
    }

    /// Changes when keys do.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Fetches the keys of a place because a token names one that is not known. Returns when they are there, could not be fetched, or were
    /// fetched too short a while ago.
    pub(crate) async fn look_again(&self, url: &str, authorities: Option<&str>) {
        let source = self.source(url, authorities);
        let _fetching = source.fetching.lock().await;
        if source.tried().is_none_or(|tried| tried.elapsed() >= AT_MOST_EVERY) {
            self.fetch(&source, url, authorities).await;
        }
    }

    /// Fetches whatever is due, and forgets the places that no provider names any more.
    pub(crate) async fn keep_fresh(&self, set: &ResourceSet) {
        let places: Vec<Place> = set
            .identity_providers()
            .filter_map(|provider| match &provider.keys {
                KeySource::Url { url, authorities } => Some((url.clone(), authorities.clone())),
                KeySource::File(_) => None,
            })
            .collect();
        self.sources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|place, _| places.contains(place));
        join_all(places.iter().map(|(url, authorities)| async move {
            let source = self.source(url, authorities.as_deref());
            let is_due = {
                let state = source.state.read().unwrap_or_else(PoisonError::into_inner);
                let every = if state.fetched == state.tried {
                    FETCH_EVERY
                } else {
                    RETRY_EVERY
                };
                state.tried.is_none_or(|tried| tried.elapsed() >= every)
            };
            // Somebody who fetches already will do.
            if is_due && let Ok(_fetching) = source.fetching.try_lock() {
                self.fetch(&source, url, authorities.as_deref()).await;
            }
        }))
        .await;
    }

    fn source(&self, url: &str, authorities: Option<&str>) -> Arc<Source> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(
            sources
                .entry((url.to_owned(), authorities.map(str::to_owned)))
                .or_default(),
        )
    }

    async fn fetch(&self, source: &Source, url: &str, authorities: Option<&str>) {
        let begun = Instant::now();
        let answer = answer_of(url, authorities).await;
        let mut state = source.state.write().unwrap_or_else(PoisonError::into_inner);
        state.tried = Some(begun);
        match answer {
            Ok(set) => {
                for why in &set.broken {
                    tracing::warn!(url, "a key of an identity provider cannot be used: {why}");
                }
                state.fetched = Some(begun);
                if *state.keys != set.keys {
                    tracing::info!(
                        url,
                        keys = set.keys.len(),
                        "the keys of an identity provider are in force"
                    );
                    state.keys = Arc::new(set.keys);
                    self.version.fetch_add(1, Ordering::Release);
                }
            }
            Err(why) => tracing::warn!(url, "the keys of an identity provider could not be fetched: {why}"),
        }
    }
}

async fn answer_of(url: &str, authorities: Option<&str>) -> Result<Jwks, String> {
    let client = client(url, authorities)?;
    let failed = |error: reqwest::Error| {
        // The innermost cause says most.
        let error = error.without_url();
        let mut cause: &dyn std::error::Error = &error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        format!("{error}: {cause}")
    };
    let mut answer = client.get(url).send().await.map_err(failed)?;
    if !answer.status().is_success() {
        return Err(format!("the answer was {}", answer.status()));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        if bytes.len() + chunk.len() > LARGEST_KEY_SET {
            return Err(format!("the answer is larger than {} KiB", LARGEST_KEY_SET / 1024));
        }
        bytes.extend_from_slice(&chunk);
    }
    let text = String::from_utf8(bytes).map_err(|_| "the answer is not UTF-8".to_owned())?;
    Jwks::read(&text)
}

fn client(url: &str, authorities: Option<&str>) -> Result<Client, String> {
    let mut builder = Client::builder()
        .connect_timeout(CONNECT_WITHIN)
        .timeout(ANSWER_WITHIN)
        // An issuer says where its keys are; where that sends one on to was declared by nobody.
        .redirect(Policy::none())
        .user_agent("minerva");
    if url.starts_with("http://") {
        // This machine is reached without a proxy.
        builder = builder.no_proxy();
    }
    if let Some(pem) = authorities {
        builder = builder.tls_built_in_root_certs(false);
        let trusted = Certificate::from_pem_bundle(pem.as_bytes())
            .map_err(|error| format!("`authorities` cannot be used: {error}"))?;
        for certificate in trusted {
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build().map_err(|error| format!("{error}"))
}
