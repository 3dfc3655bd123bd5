//! How an item's media become the parts of a prompt.
//!
//! Media come first, in the order of the item, each after a line that names it and its times, and the same for every
//! role with the same media mode: so all roles and tries of a clip share a prefix that providers' caches can hit.

use std::sync::Arc;

use crate::job::{MediaKind, MediaRef};
use crate::journal::key::CanonicalMedium;
use crate::media::Prepared;
use crate::provider::{Part, Role, VideoFrom};
use crate::recipe::{MediaMode, Recipe};
use crate::record::{ErrorKind, RecordError};

/// One medium of an item, ready to be shown.
#[derive(Debug, Clone)]
pub struct Medium {
    /// As the item names it.
    pub source: MediaRef,
    /// Its frames and sound.
    pub prepared: Arc<Prepared>,
}

/// What a role is shown.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// Labels, images and sounds, in order.
    pub parts: Vec<Part>,
    /// The same for the journal's key.
    pub canonical: Vec<CanonicalMedium>,
}

/// The parts of `media` that a role in this mode is shown.
pub fn parts(mode: MediaMode, media: &[Medium]) -> Shown {
    let mut shown = Shown::default();
    for medium in media {
        if mode.frames() && medium.source.kind == MediaKind::Video {
            frames(medium, &mut shown);
        }
        let whole = mode.video() && medium.source.kind == MediaKind::Video;
        if whole {
            clip(medium, &mut shown);
        }
        if mode.audio() && !whole && medium.source.own_track {
            sound(medium, &mut shown);
        }
    }
    shown
}

/// The first role that is to be shown something of these media and would be shown nothing, with what to do about it: its
/// replies would be paid for and worth nothing.
pub fn blind(recipe: &Recipe, media: &[Medium]) -> Option<RecordError> {
    let nothing = |mode: MediaMode| mode != MediaMode::None && parts(mode, media).canonical.is_empty();
    let role = Role::ALL.into_iter().find(|role| nothing(recipe.seat(*role).media))?;
    let mode = recipe.seat(role).media;
    let (lacks, more) = match mode {
        MediaMode::Video | MediaMode::VideoAndAudio => ("video", MediaMode::VideoAndAudio),
        MediaMode::Frames => ("video", MediaMode::FramesAndAudio),
        MediaMode::None | MediaMode::Audio | MediaMode::FramesAndAudio => ("sound", MediaMode::FramesAndAudio),
    };
    let (mode, more) = (mode.name(), more.name());
    let message = format!(
        "the {role} would be shown nothing of this item: roles.{role}.media in the recipe is {mode:?} and the item has no \
         {lacks} to show; {more:?} shows both"
    );
    Some(RecordError { kind: ErrorKind::InvalidMedia, message, role: Some(role), try_index: None })
}

fn frames(medium: &Medium, shown: &mut Shown) {
    let frames = &medium.prepared.frames;
    let times: Vec<String> = frames.iter().map(|frame| seconds(frame.at_ms)).collect();
    let label = format!("Video \"{}\", key frames at {}:", medium.source.name, times.join(", "));
    shown.parts.push(Part::Text(label));
    shown.parts.extend(frames.iter().map(|frame| Part::Image {
        blob: frame.jpeg.clone(),
        width: frame.width,
        height: frame.height,
    }));
    shown.canonical.push(canonical(medium, "frames"));
}

fn clip(medium: &Medium, shown: &mut Shown) {
    let Some(clip) = &medium.prepared.clip else { return };
    let cut = if clip.trimmed { ", its beginning" } else { "" };
    let label = format!("Video \"{}\", {}{cut}:", medium.source.name, seconds(clip.duration_ms));
    shown.parts.push(Part::Text(label));
    shown.parts.push(Part::Video {
        from: VideoFrom::Clip(Arc::clone(clip)),
        mime: clip.mime,
        duration_ms: clip.duration_ms,
        sound: clip.sound,
    });
    // The same words stand before a clip with its sound and one without.
    shown.canonical.push(canonical(medium, if medium.source.own_track { "video" } else { "silent" }));
}

fn sound(medium: &Medium, shown: &mut Shown) {
    let Some(sound) = &medium.prepared.sound else { return };
    let what = match medium.source.kind {
        MediaKind::Video => "Sound of video",
        MediaKind::Audio => "Sound",
    };
    let cut = if sound.trimmed { ", its beginning" } else { "" };
    let label = format!("{what} \"{}\", {}{cut}:", medium.source.name, seconds(sound.duration_ms));
    shown.parts.push(Part::Text(label));
    shown.parts.push(Part::Audio { blob: sound.blob.clone(), duration_ms: sound.duration_ms });
    shown.canonical.push(canonical(medium, "audio"));
}

fn canonical(medium: &Medium, shown: &'static str) -> CanonicalMedium {
    let (name, sha256) = (medium.source.name.clone(), medium.prepared.sha256.clone());
    CanonicalMedium { name, shown, sha256 }
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}
