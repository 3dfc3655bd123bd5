//! Clips as a whole, made once per content like frames and sound.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;

use super::super::cache::{Making, Turn};
use super::super::clip::{self, kept};
use super::super::{Address, Clip, Kind, MediaError, MediaErrorKind, source};
use super::{Inner, Key, Source, blocking};
use crate::lock::lock;

impl Inner {
    /// The clip as a whole, and the source's length in milliseconds.
    pub(super) async fn clip(
        self: &Arc<Self>,
        key: Key,
        source: &Source,
        uri: &str,
    ) -> Result<(Arc<Clip>, u64), MediaError> {
        if let Some(error) = lock(&self.failures).get(&key) {
            return Err(error);
        }
        let known = self.known_clip(&key);
        let kept = if let Some(kept) = known {
            kept
        } else {
            let make = || self.clone().make_clip(key.clone(), source.clone()).boxed();
            self.clip_flights.run(key.clone(), make).await?
        };
        let (shape, source_ms) = (kept.shape, kept.shape.source_ms);
        let (sha256, address, file, identity, lease) = if let Some(made) = kept.made {
            (made.sha256, Address::None, made.file, made.identity, Some(made.lease))
        } else {
            (key.0, self.address(uri), source.file.clone(), source.identity.clone(), source.lease.clone())
        };
        let clip::Shape { mime, duration_ms, trimmed, smaller, sound, .. } = shape;
        let bytes = identity.bytes;
        let clip =
            Clip { sha256, bytes, mime, duration_ms, trimmed, smaller, sound, address, file, identity, _lease: lease };
        Ok((Arc::new(clip), source_ms))
    }

    /// Where others may fetch a source: nowhere but at a public address, which is what it was judged to be when it was
    /// fetched unless its host is one of `private_hosts`.
    fn address(&self, uri: &str) -> Address {
        match (source::locate(uri), &self.remote) {
            (Ok(source::Place::Remote(source::Origin::Web(url))), Some(remote)) if remote.is_public(&url) => {
                Address::Public(uri.into())
            }
            (Ok(source::Place::Remote(source::Origin::Web(_))), _) => Address::Private,
            _ => Address::None,
        }
    }

    /// A clip that somebody uses, or that is the source itself.
    fn known_clip(&self, key: &Key) -> Option<kept::Kept> {
        lock(&self.clips).get(key).and_then(kept::Known::kept)
    }

    async fn make_clip(self: Arc<Self>, key: Key, source: Source) -> Result<kept::Kept, MediaError> {
        if let Some(kept) = self.known_clip(&key) {
            return Ok(kept);
        }
        let silent = key.1 == Kind::Silent;
        let (inner, sha256) = (self.clone(), key.0.clone());
        let look = move || kept::load(&inner.cache, &sha256, silent, &inner.settings, &inner.known);
        let name = kept::name(&key.0, silent, &self.settings);
        let kept = match self.cache.space().turn(&name, &self.slots, self.patience(), look).await? {
            Turn::Done(kept) => Ok(kept),
            Turn::Mine(making, _slot) => self.clone().new_clip(&key, source, making).await,
        };
        kept.inspect(|kept| lock(&self.clips).insert(key.clone(), kept.known())).inspect_err(|error| {
            if matches!(error.kind, MediaErrorKind::Invalid | MediaErrorKind::Killed) {
                lock(&self.failures).insert(key.clone(), error.clone());
            }
        })
    }

    async fn new_clip(self: Arc<Self>, key: &Key, source: Source, making: Making) -> Result<kept::Kept, MediaError> {
        let making = Arc::new(making);
        let (inner, here) = (self.clone(), making.clone());
        let work = blocking(move || inner.cache.space().with_room(0, || here.work())).await?;
        self.counts.clips.fetch_add(1, Ordering::Relaxed);
        let silent = key.1 == Kind::Silent;
        let from = clip::Source {
            file: &source.file,
            bytes: source.identity.bytes,
            silent,
            dir: &work,
            settings: &self.settings,
            limits: &self.limits,
        };
        let (shape, made) = self.attempts(|| clip::make(from)).await?;
        let (inner, sha256) = (self.clone(), key.0.clone());
        blocking(move || {
            source::unchanged(&source.file, &source.identity)?;
            kept::save(&inner.cache, &making, &sha256, silent, &inner.settings, &inner.known, (shape, made.as_deref()))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Library, Store};
    use super::*;
    use crate::media::{Limits, Settings, Wants};

    #[test]
    fn the_address_of_a_private_host_is_told_to_nobody() {
        let allow = ["https://media.example.org/a/", "https://media.example.org:8443/", "https://10.0.0.5:8443/"];
        let store = Store {
            allow: allow.map(|allowed| allowed.parse().unwrap()).to_vec(),
            private_hosts: vec!["10.0.0.5:8443".to_owned(), "media.example.org:8443".to_owned()],
            ..Store::default()
        };
        let (dir, wants) = (tempfile::tempdir().unwrap(), Wants { clip: true, ..Wants::default() });
        let cache = dir.path().to_owned();
        let library = Library::with_store(cache, Settings::default(), wants, Limits::default(), store).unwrap();
        let public = "https://media.example.org/a/b.mp4?signature=x";
        for (uri, address) in [
            (public, Address::Public(public.into())),
            ("https://media.example.org:8443/b.mp4", Address::Private),
            ("https://MEDIA.example.org:8443/b.mp4", Address::Private),
            ("https://10.0.0.5:8443/b.mp4", Address::Private),
            // Not allowed as it stands, so it was never fetched, but nothing here rests on that.
            ("https://10.0.0.6/b.mp4", Address::Private),
            ("https://localhost/b.mp4", Address::Private),
            ("clips/b.mp4", Address::None),
            ("file:///clips/b.mp4", Address::None),
        ] {
            assert!(library.0.address(uri) == address, "{uri}");
        }
    }
}
