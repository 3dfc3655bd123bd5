//! How the clips of a request reach the provider, before a reservation for its call is asked for.
//!
//! A small clip goes inside the request, a large one is uploaded, or the provider fetches the source itself. An uploaded
//! file belongs to the project of one credential: the call is then made with that credential and no other, preferably
//! with one that has the files already ([`keys`]). What goes wrong here is met like a failed call ([`super::caller`]) but
//! costs no attempt that could be billed, no ask and no try.

mod inline;
mod keys;
mod reserve;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::inline::{Inline, MOST_PER_REQUEST};
use super::caller::NoReply;
use super::line::{Account, Line};
use crate::fault::Halt;
use crate::media::{Address, Clip, MediaError};
use crate::provider::credentials::Credential;
use crate::provider::{CallError, CallErrorKind, Endpoint, Part, Request, VideoFrom, VideoSent, VideoWay};
use crate::quota::gate::Gate;
use crate::upload::{NotUploaded, Uploads, Use};

/// Hands clips over. One for the process; clones share it.
#[derive(Debug, Clone)]
pub struct Handover {
    inline: Arc<Inline>,
    uploads: Uploads,
}

/// A request that can be sent, and by whom.
pub(super) struct Handed<'a> {
    pub(super) request: Cow<'a, Request>,
    /// How each of its clips goes, in order.
    pub(super) sent: Vec<VideoSent>,
    accounts: Vec<&'a Account>,
    /// How long it may wait for them before others are looked at.
    longest: Duration,
    uploaded: Vec<(Use, Arc<str>)>,
}

/// The credential that has the files of a request.
struct Placed<'a> {
    accounts: Vec<&'a Account>,
    longest: Duration,
    uploaded: Vec<(Use, Arc<str>)>,
}

impl Handed<'_> {
    /// An error without the addresses that were sent: that of a source may hold a signature, and servers quote what they
    /// cannot fetch.
    pub(super) fn without_addresses(&self, mut error: CallError) -> CallError {
        for part in self.request.parts.iter() {
            let Part::Video { from: VideoFrom::Uri(uri), .. } = part else { continue };
            let Some((_, query)) = uri.split_once('?') else { continue };
            let values = query.split('&').filter_map(|pair| pair.split_once('=')).map(|(_, value)| value);
            for secret in [&**uri, query].into_iter().chain(values.filter(|value| value.len() > 3)) {
                error.message = error.message.replace(secret, "[address]");
            }
        }
        error
    }
}

/// Why a request cannot be sent now.
pub(super) enum NotHanded<'a> {
    /// Like a failed call with this credential.
    Failed(&'a Account, CallError),
    /// For good.
    Never(NoReply),
}

/// The clips of one ask.
pub(super) struct Clips<'a> {
    handover: &'a Handover,
    request: &'a Request,
    /// How often a file was gone.
    gone: u32,
}

impl Handover {
    /// With these uploads, and nothing in memory yet.
    pub fn new(uploads: Uploads) -> Self {
        Self { inline: Arc::new(Inline::new()), uploads }
    }

    pub(super) fn of<'a>(&'a self, request: &'a Request) -> Clips<'a> {
        Clips { handover: self, request, gone: 0 }
    }
}

impl<'a> Clips<'a> {
    /// The request with its clips where the provider finds them, and those of `accounts` that may send it. Cancel safe.
    pub(super) async fn over(
        &mut self,
        line: &'a Line,
        accounts: Vec<&'a Account>,
        gate: &Gate,
        stop: &CancellationToken,
    ) -> Result<Handed<'a>, NotHanded<'a>> {
        let clips = clips(self.request);
        if clips.is_empty() {
            let (request, sent) = (Cow::Borrowed(self.request), Vec::new());
            return Ok(Handed { request, sent, accounts, longest: Duration::MAX, uploaded: Vec::new() });
        }
        let sent = ways(&line.endpoint, &clips).map_err(NotHanded::Never)?;
        let going = |wanted: VideoSent| {
            let all = clips.iter().zip(&sent).filter(move |(_, way)| **way == wanted);
            all.map(|(clip, _)| *clip).collect::<Vec<_>>()
        };
        let files = going(VideoSent::Upload);
        let Placed { accounts, longest, uploaded } = if files.is_empty() {
            Placed { accounts, longest: Duration::MAX, uploaded: Vec::new() }
        } else {
            self.upload(line, accounts, &files, gate, stop).await?
        };
        let small = going(VideoSent::Inline);
        let inside = tokio::select! {
            () = stop.cancelled() => return Err(NotHanded::Never(NoReply::Halt(Halt::Stopped))),
            encoded = self.handover.inline.encoded(&small) => encoded,
        };
        let inside = inside.map_err(|error| NotHanded::Never(NoReply::Media(error.about("a clip"))))?;
        let (mut inside, mut uris) = (inside.into_iter(), uploaded.iter().map(|(_, uri)| Arc::clone(uri)));
        let from = clips.iter().zip(&sent).map(|(clip, way)| match (way, &clip.address) {
            (VideoSent::Inline, _) => inside.next().map(VideoFrom::Inline),
            (VideoSent::Url, Address::Public(url)) => Some(VideoFrom::Uri(Arc::clone(url))),
            (VideoSent::Url, Address::Private | Address::None) => None,
            (VideoSent::Upload, _) => uris.next().map(VideoFrom::Uri),
        });
        let request = Cow::Owned(with(self.request, from.flatten().collect()));
        Ok(Handed { request, sent, accounts, longest, uploaded })
    }

    /// Has the files at one credential of those that are back soon: one that has them already, else the next in turn.
    async fn upload(
        &self,
        line: &'a Line,
        accounts: Vec<&'a Account>,
        files: &[&Arc<Clip>],
        gate: &Gate,
        stop: &CancellationToken,
    ) -> Result<Placed<'a>, NotHanded<'a>> {
        let near = keys::near(accounts, gate, stop).await;
        let keys::Near { accounts, longest } = near.map_err(|halt| NotHanded::Never(NoReply::Halt(halt)))?;
        let credentials: Vec<&Credential> = accounts.iter().map(|account| &account.credential).collect();
        let (chosen, uses) = self.handover.uploads.choose(&line.endpoint, &credentials, files);
        let Some(account) = accounts.get(chosen).copied() else {
            let why = format!("provider {} has no key", line.endpoint.name);
            return Err(NotHanded::Never(NoReply::Halt(Halt::Setup(why))));
        };
        let mut uploaded = Vec::with_capacity(uses.len());
        for wanted in uses {
            let uri = wanted.uri(&line.endpoint, &account.credential, stop).await.map_err(|no| match no {
                NotUploaded::Call(error) => NotHanded::Failed(account, error),
                NotUploaded::Nobody(error) => {
                    NotHanded::Never(NoReply::Halt(Halt::Setup(line.nothing_answers(&error))))
                }
                NotUploaded::Media(error) => NotHanded::Never(NoReply::Media(error)),
                NotUploaded::Provider(why) => NotHanded::Never(NoReply::Provider(why)),
                NotUploaded::Stopped => NotHanded::Never(NoReply::Halt(Halt::Stopped)),
            })?;
            uploaded.push((wanted, uri));
        }
        Ok(Placed { accounts: vec![account], longest, uploaded })
    }

    /// Takes note of a failed call that is about its files. A file that is gone is uploaded again once.
    pub(super) async fn met(&mut self, handed: &Handed<'_>, error: &CallError) -> Result<(), NoReply> {
        match error.kind {
            CallErrorKind::FileGone if handed.uploaded.is_empty() => Err(NoReply::Refused(error.message.clone())),
            CallErrorKind::FileGone => {
                self.gone += 1;
                if self.gone > 1 {
                    let why = format!("{}; it was uploaded again before", error.message);
                    return Err(NoReply::Provider(why));
                }
                match handed.uploaded.as_slice() {
                    [(only, uri)] => only.gone(uri).await,
                    // One of them is gone; which one is seen by looking at each.
                    several => several.iter().for_each(|(one, _)| one.doubt()),
                }
                Ok(())
            }
            CallErrorKind::FileNotReady => {
                handed.uploaded.iter().for_each(|(wanted, _)| wanted.doubt());
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// How each clip of a request goes; else why one cannot.
fn ways(endpoint: &Endpoint, clips: &[&Arc<Clip>]) -> Result<Vec<VideoSent>, NoReply> {
    let mut inside = 0;
    let way = |clip: &&Arc<Clip>| {
        let small = clip.bytes <= endpoint.inline_bytes && inside + clip.bytes <= MOST_PER_REQUEST;
        let way = match endpoint.video {
            VideoWay::None => {
                let name = &endpoint.name;
                return Err(NoReply::Halt(Halt::Setup(format!(
                    "provider {name} takes no clips (providers.{name}.video)"
                ))));
            }
            VideoWay::Url if matches!(clip.address, Address::Public(_)) => VideoSent::Url,
            _ if small => VideoSent::Inline,
            VideoWay::Upload => VideoSent::Upload,
            VideoWay::Inline | VideoWay::Url => return Err(NoReply::Media(too_large(endpoint, clip))),
        };
        inside += if way == VideoSent::Inline { clip.bytes } else { 0 };
        Ok(way)
    };
    clips.iter().map(way).collect()
}

fn too_large(endpoint: &Endpoint, clip: &Clip) -> MediaError {
    let (name, most) = (&endpoint.name, endpoint.inline_bytes.min(MOST_PER_REQUEST) >> 20);
    let private = endpoint.video == VideoWay::Url && clip.address == Address::Private;
    let why =
        if private { "; its address is told to nobody, since its server is one of [store] private_hosts" } else { "" };
    MediaError::invalid(format!(
        "a clip of {} KiB does not fit into a request to {name}, which takes {most} MiB (providers.{name}.inline_mib; \
         {} for all clips of an item){why}: set media.clip_mib in the recipe to make it smaller",
        clip.bytes.div_ceil(1 << 10),
        MOST_PER_REQUEST >> 20
    ))
}

fn clips(request: &Request) -> Vec<&Arc<Clip>> {
    let clip = |part| match part {
        &Part::Video { from: VideoFrom::Clip(ref clip), .. } => Some(clip),
        _ => None,
    };
    request.parts.iter().filter_map(clip).collect()
}

/// The request with its clips, in order, replaced.
fn with(request: &Request, from: Vec<VideoFrom>) -> Request {
    let mut places = from.into_iter();
    let part = |part: &Part| match part {
        Part::Video { from: VideoFrom::Clip(clip), mime, duration_ms, sound } => {
            let from = places.next().unwrap_or_else(|| VideoFrom::Clip(Arc::clone(clip)));
            Part::Video { from, mime, duration_ms: *duration_ms, sound: *sound }
        }
        other => other.clone(),
    };
    Request { parts: request.parts.iter().map(part).collect(), ..request.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::clip_of_file;
    use crate::provider::{Params, Protocol, Role, Thinking};

    fn endpoint(video: VideoWay, inline_bytes: u64) -> Endpoint {
        Endpoint {
            name: "p".to_owned(),
            protocol: Protocol::Gemini,
            base_url: String::new(),
            api_version: String::new(),
            identity: String::new(),
            video,
            inline_bytes,
        }
    }

    fn clip(bytes: usize, address: Address) -> Arc<Clip> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.mp4");
        std::fs::write(&path, vec![1; bytes]).unwrap();
        Arc::new(Clip { address, ..clip_of_file(&path) })
    }

    #[test]
    fn a_clip_goes_the_way_its_provider_takes() {
        use VideoWay::{Inline, Upload, Url};
        let (small, large) = (clip(10, Address::None), clip(1000, Address::None));
        let remote = clip(1000, Address::Public("https://host/a.mp4?signature=secret".into()));
        let (near, own) = (clip(10, Address::Private), clip(1000, Address::Private));
        for (video, clip, way) in [
            (Upload, &small, Some(VideoSent::Inline)),
            (Upload, &large, Some(VideoSent::Upload)),
            (Upload, &remote, Some(VideoSent::Upload)),
            (Upload, &own, Some(VideoSent::Upload)),
            (Inline, &small, Some(VideoSent::Inline)),
            (Inline, &large, None),
            (Inline, &remote, None),
            (Url, &small, Some(VideoSent::Inline)),
            (Url, &remote, Some(VideoSent::Url)),
            (Url, &near, Some(VideoSent::Inline)),
            (Url, &own, None),
            (Url, &large, None),
        ] {
            let ways = ways(&endpoint(video, 100), &[clip]);
            match (way, ways) {
                (Some(way), Ok(ways)) => assert_eq!(ways, [way], "{video:?} {clip:?}"),
                (None, Err(NoReply::Media(error))) => {
                    assert!(error.message.contains("providers.p.inline_mib"), "{error}");
                    assert!(error.message.contains("media.clip_mib") && !error.message.contains("secret"), "{error}");
                    let named = error.message.contains("[store] private_hosts");
                    assert_eq!(named, clip.address == Address::Private, "{error}");
                }
                (way, ways) => panic!("{video:?} {clip:?}: {way:?}, {ways:?}"),
            }
        }
        assert!(!format!("{remote:?}").contains("secret"));
    }

    #[test]
    fn a_request_holds_only_so_much_and_the_rest_is_uploaded() {
        // Not read: its size is all that is looked at.
        let large = Arc::new(Clip { bytes: MOST_PER_REQUEST / 2 + 1, ..(*clip(1, Address::None)).clone() });
        let small = clip(10, Address::None);
        let ways = ways(&endpoint(VideoWay::Upload, u64::MAX), &[&large, &large, &small]).unwrap();
        assert_eq!(ways, [VideoSent::Inline, VideoSent::Upload, VideoSent::Inline]);
    }

    #[test]
    fn each_clip_gets_its_own_place_and_all_else_stays() {
        let (one, two) = (clip(1, Address::None), clip(2, Address::None));
        let part = |clip: &Arc<Clip>| Part::Video {
            from: VideoFrom::Clip(Arc::clone(clip)),
            mime: "video/mp4",
            duration_ms: 1,
            sound: true,
        };
        let request = Request {
            role: Role::Generator,
            model: "m".to_owned(),
            system: None,
            parts: vec![Part::Text("a".to_owned()), part(&one), part(&two), Part::Text("b".to_owned())].into(),
            params: Params { temperature: None, top_p: None, max_output_tokens: 1, thinking: Thinking::Off, seed: 0 },
            schema: None,
        };
        assert_eq!(clips(&request), [&one, &two]);
        let at = |uri: &str| VideoFrom::Uri(uri.into());
        let sent = with(&request, vec![at("1"), at("2")]);
        assert!(clips(&sent).is_empty());
        let from = |part: &Part| match part {
            Part::Video { from: VideoFrom::Uri(uri), .. } => uri.to_string(),
            Part::Text(text) => text.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(sent.parts.iter().map(from).collect::<String>(), "a12b");
    }
}
