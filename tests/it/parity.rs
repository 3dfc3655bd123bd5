//! Key frames against scikit-image and OpenCV: stored clips, and what those two find in them (`tests/goldens`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aurelia::media::{Kind, Library, Limits, Selection, Settings, Wants, key_frames};

/// By frame, the SSIM of the frames below 0.6.
type Found = BTreeMap<u64, f64>;

fn goldens() -> Vec<(PathBuf, Found)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let text = std::fs::read_to_string(dir.join("clips.txt")).unwrap();
    let golden = |line: &str| {
        let mut words = line.split(' ');
        let clip = dir.join("clips").join(words.next().unwrap());
        let found = words.skip(1).map(|word| {
            let (frame, bits) = word.split_once(':').unwrap();
            (frame.parse().unwrap(), f64::from_bits(u64::from_str_radix(bits, 16).unwrap()))
        });
        (clip, found.collect())
    };
    text.lines().filter(|line| !line.starts_with('#')).map(golden).collect()
}

async fn found(clip: &Path, selection: Selection) -> Found {
    let frames = key_frames(clip, selection, &Limits::default()).await;
    let frames = frames.unwrap_or_else(|error| panic!("{}: {error}", clip.display()));
    frames.into_iter().map(|key| (key.frame, key.ssim)).collect()
}

#[tokio::test]
async fn faithful_finds_the_frames_that_scikit_image_finds_in_opencvs_frames() {
    let goldens = goldens();
    assert!(goldens.len() >= 16, "clips of every kind");
    for (clip, golden) in goldens {
        let ours = found(&clip, Selection::Faithful).await;
        let name = clip.file_name().unwrap().to_str().unwrap();
        assert!(ours.keys().eq(golden.keys()), "{name}: {ours:?} for {golden:?}");
        // OpenCV brings a scaler of its own, newer than Debian's, that rounds 10 bits to 8 in another way.
        let near = if name == "deep.mp4" { 2e-2 } else { 1e-6 };
        for (frame, ssim) in ours {
            let away = (ssim - golden[&frame]).abs();
            assert!(away < near, "{name}, frame {frame}: {ssim} for {}", golden[&frame]);
        }
    }
}

#[tokio::test]
async fn fast_agrees_with_faithful_on_nearly_all_key_frames() {
    let (mut both, mut missed, mut added) = (0, 0, 0);
    for (clip, golden) in goldens() {
        let ours = found(&clip, Selection::Fast).await;
        let agreed = ours.keys().filter(|frame| golden.contains_key(frame)).count();
        println!("{}: {agreed} of {}, {} more", clip.display(), golden.len(), ours.len() - agreed);
        both += agreed;
        missed += golden.len() - agreed;
        added += ours.len() - agreed;
    }
    println!("fast: {both} agreed, {missed} missed, {added} added");
    assert!(both >= 50 && missed * 20 <= both && added * 20 <= both, "{both} agreed, {missed} missed, {added} added");
}

#[tokio::test]
async fn both_selections_show_the_key_frames_they_found() {
    let clips: BTreeMap<String, PathBuf> =
        goldens().into_iter().map(|(clip, _)| (clip.file_name().unwrap().to_str().unwrap().to_owned(), clip)).collect();
    // Each shows the cuts first; the times are those of the frames, at 10 frames per second.
    let expected: [(&str, &[u64]); 4] =
        [("bt709.mp4", &[500]), ("mpeg4.avi", &[500]), ("deep.mp4", &[500]), ("cuts.mp4", &[1000, 2000])];
    for selection in [Selection::Fast, Selection::Faithful] {
        for (name, times) in expected {
            let dir = tempfile::tempdir().unwrap();
            let settings = Settings { selection, ..Settings::default() };
            let library = Library::new(dir.path().join("cache"), settings, Wants::default(), Limits::default());
            let prepared = library.prepare(clips[name].to_str().unwrap(), Kind::Video).await.unwrap();
            let shown: Vec<u64> = prepared.frames.iter().map(|frame| frame.at_ms).collect();
            assert_eq!(shown.len(), 5, "{name}");
            assert!(times.iter().all(|at| shown.contains(at)), "{name}, {selection:?}: {shown:?}");
            let picture = &prepared.frames[0];
            assert!(picture.width > 0 && picture.height > 0);
            assert_eq!(library.stats().decodes, 1);
        }
    }
}

#[tokio::test]
async fn both_selections_encode_frames_alike() {
    let clip = goldens().into_iter().find(|(clip, _)| clip.ends_with("turned.mp4")).unwrap().0;
    let mut sizes = Vec::new();
    for selection in [Selection::Fast, Selection::Faithful] {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { selection, frame_size: 104, ..Settings::default() };
        let library = Library::new(dir.path().join("cache"), settings, Wants::default(), Limits::default());
        let prepared = library.prepare(clip.to_str().unwrap(), Kind::Video).await.unwrap();
        sizes.extend(prepared.frames.iter().map(|frame| (frame.width, frame.height)));
    }
    assert_eq!(sizes, [(59, 104); 10], "turned, with square pixels, fitted into the size");
}
