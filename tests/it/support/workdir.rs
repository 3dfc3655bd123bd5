//! A folder of a test: clips, corpora, outputs, logs.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use aurelia::demo::clip::{Content, Style};
use aurelia::record::Record;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{clips, promises};

/// A folder that is gone after the test. Dropped, it checks what holds for every run, whatever the test was about.
pub(crate) struct Workdir {
    dir: TempDir,
    /// Key values that were used: none may be found anywhere.
    pub(super) secrets: RefCell<BTreeSet<String>>,
    /// Files that hold keys on purpose.
    key_files: RefCell<BTreeSet<PathBuf>>,
}

impl Workdir {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["clips", "home", "logs"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        Self { dir, secrets: RefCell::default(), key_files: RefCell::default() }
    }

    /// One with `clips/0.mp4` to `clips/{n-1}.mp4`, all different, a second long, with sound.
    pub(crate) fn with_clips(n: u64) -> Self {
        let work = Self::new();
        for seed in 0..n {
            work.clip(&format!("{seed}.mp4"), Style::small(Content::Full, seed), 1);
        }
        work
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The usual output directory.
    pub(crate) fn out(&self) -> PathBuf {
        self.path("out")
    }

    /// Puts a clip at `clips/NAME`.
    pub(crate) fn clip(&self, name: &str, style: Style, seconds: u32) -> PathBuf {
        let path = self.path("clips").join(name);
        fs::copy(clips::kept(style, seconds), &path).unwrap();
        path
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// Writes keys to a file, which is the one place where they may be found.
    pub(crate) fn key_file(&self, name: &str, keys: &[&str]) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.write(name, keys.join("\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        self.key_files.borrow_mut().insert(path.clone());
        self.secrets.borrow_mut().extend(keys.iter().map(|key| (*key).to_owned()));
        path
    }

    /// Writes a corpus, one item per line.
    pub(crate) fn items(&self, name: &str, items: &[Value]) -> PathBuf {
        let lines: String = items.iter().map(|item| format!("{item}\n")).collect();
        self.write(name, lines)
    }

    /// Writes a copy of the default recipe with each of `changes` made; a change that meets nothing is a mistake.
    pub(crate) fn recipe(&self, name: &str, changes: &[(&str, &str)]) -> PathBuf {
        let mut text = include_str!("../../../config/recipes/default.toml").to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "the recipe has no {from:?}");
            text = text.replacen(from, to, 1);
        }
        self.write(name, text)
    }

    /// The records of the usual output directory, by item.
    pub(crate) fn records(&self) -> BTreeMap<String, Record> {
        records(&self.out())
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            promises::check(self.dir.path(), &self.secrets.borrow(), &self.key_files.borrow());
        }
    }
}

/// `n` items, `item-000` on, each with a question of its own, over the clips `clips/0.mp4` to `clips/{clips-1}.mp4` in turn.
pub(crate) fn corpus(n: usize, clips: usize) -> Vec<Value> {
    let item = |i| {
        json!({ "id": format!("item-{i:03}"), "video": format!("clips/{}.mp4", i % clips),
                "query": format!("What is heard first, and where does it come from ({i})?") })
    };
    (0..n).map(item).collect()
}

/// The records of an output directory, by item; a torn last line is left out.
pub(crate) fn records(out: &Path) -> BTreeMap<String, Record> {
    read(&out.join("records.jsonl")).into_iter().map(|record| (record.item_id.clone(), record)).collect()
}

/// The records that were asked for again, in their order.
pub(crate) fn superseded(out: &Path) -> Vec<Record> {
    read(&out.join("records.superseded.jsonl"))
}

/// The whole lines of a file of records, in their order; none when there is no file.
pub(crate) fn read(path: &Path) -> Vec<Record> {
    let Ok(text) = fs::read_to_string(path) else { return Vec::new() };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{}: {e}: {line}", path.display()));
    whole.lines().map(parse).collect()
}
