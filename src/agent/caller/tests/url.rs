//! Clips that a provider fetches itself: their address is sent, and seen nowhere else.

use std::net::{Ipv4Addr, SocketAddr};

use super::*;
use crate::journal::key::CanonicalMedium;
use crate::media::{Address, Clip, clip_of_file};
use crate::provider::{VideoFrom, VideoWay};
use crate::simulator::{Flavour, Settings, Simulator};

const ADDRESS: &str = "https://media.example.org/clips/a.mp4?X-Amz-Signature=open-sesame";

fn shown(model: &str, clip: &Arc<Clip>) -> Request {
    let video = Part::Video {
        from: VideoFrom::Clip(Arc::clone(clip)),
        mime: clip.mime,
        duration_ms: clip.duration_ms,
        sound: clip.sound,
    };
    Request { model: model.to_owned(), parts: vec![video, Part::Text("Who?".to_owned())].into(), ..request() }
}

fn canonical(model: &str, clip: &Clip, ordinal: u32) -> Canonical {
    let mut canonical = Canonical::new("i", model, Role::Evaluator, "item", Sample { item: 0, try_index: 0 });
    let medium = CanonicalMedium { name: "v".to_owned(), shown: "video", sha256: clip.sha256.to_string() };
    (canonical.media, canonical.ordinal) = (vec![medium], ordinal);
    canonical
}

#[tokio::test]
async fn the_address_of_a_public_source_is_sent_to_each_protocol_and_shown_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mp4");
    std::fs::write(&path, vec![7; 2000]).unwrap();
    let clip = Arc::new(Clip { address: Address::Public(ADDRESS.into()), ..clip_of_file(&path) });
    for (protocol, model) in [(Protocol::Gemini, MODEL), (Protocol::Openai, "qwen-vl")] {
        let settings = Settings { openai_flavour: Flavour::Vllm, ..Settings::default() };
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let simulator = Simulator::start(settings, here).await.unwrap();
        let mut line = line(&["K"]);
        line.endpoint.protocol = protocol;
        line.endpoint.base_url = match protocol {
            Protocol::Gemini => simulator.base_url(),
            Protocol::Openai => format!("{}/v1", simulator.base_url()),
        };
        // Nothing fits into a request: it goes by its address or not at all.
        (line.endpoint.video, line.endpoint.inline_bytes) = (VideoWay::Url, 0);
        let name = if protocol == Protocol::Gemini { "gemini" } else { "openai" };
        let state = Arc::new(State::open(&dir.path().join(format!("{name}.sqlite"))).unwrap());
        let live = live(&state, [((name.to_owned(), model.to_owned()), line)].into()).await;
        let caller = Caller::live(Journal::new(Arc::clone(&state)), live);
        let stop = CancellationToken::new();
        let payer = Payer { job_id: "job", job_deadline: Duration::from_secs(1), stop: &stop };
        let asked = canonical(model, &clip, 0);
        let own = Asked { canonical: &asked, provider: name };
        let paid = caller.reply(own, None, |_| shown(model, &clip), payer).await.unwrap();
        assert_eq!(paid.stored.clips, [crate::provider::VideoSent::Url]);
        // What was sent was a video that the server may fetch, and no bytes of it.
        let stats = simulator.stats();
        assert_eq!((stats.answered_by_role.values().sum::<u64>(), paid.attempts), (1, 1));
        assert_eq!((stats.parts_shown.get("video"), stats.media_bytes), (Some(&1), 0));
        let kept = caller.journal.exchange(asked.key()).await.unwrap().unwrap();
        assert_eq!(kept.stored.clips, paid.stored.clips);
        assert!(!format!("{kept:?}").contains("sesame") && !format!("{kept:?}").contains("media.example.org"));
    }
}
