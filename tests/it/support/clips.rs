//! Clips, each made once and kept beside the build.

use std::path::{Path, PathBuf};

use aurelia::demo::clip::{self, Content, Size, Style};

/// The kept clip of this style; made if it is not there. Any number of test processes may ask at once.
pub(crate) fn kept(style: Style, seconds: u32) -> PathBuf {
    // Another way of making clips makes others.
    let maker = blake3::hash(include_bytes!("../../../src/demo/clip.rs")).to_hex();
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("clips-{}", &maker[..12]));
    std::fs::create_dir_all(&dir).unwrap();
    let size = if style.size == Size::Hd { "hd" } else { "small" };
    let name = format!("{size}-{:?}-{}-{seconds}.{}", style.content, style.seed, ending(style.content));
    let path = dir.join(name.to_lowercase());
    if !path.exists() {
        let unfinished =
            tempfile::Builder::new().suffix(&format!(".{}", ending(style.content))).tempfile_in(&dir).unwrap();
        let make = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(clip::make(unfinished.path(), seconds, style)).unwrap();
        };
        // On a thread of its own, as the caller may be in a runtime.
        std::thread::scope(|scope| scope.spawn(make).join().unwrap());
        unfinished.persist(&path).unwrap();
    }
    path
}

/// What a file of this content is called.
pub(crate) fn ending(content: Content) -> &'static str {
    if content == Content::AudioOnly { "wav" } else { "mp4" }
}
