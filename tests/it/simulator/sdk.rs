//! The official SDKs from PyPI against the simulator: they must accept all it says. Needs python3 and PyPI.

use std::path::{Path, PathBuf};

use aurelia::simulator::Settings;
use tokio::process::Command;

const REQUIREMENTS: &str = include_str!("../../sdk/requirements.txt");

/// Runs a command; its output, or a panic that says what was tried and what it said.
async fn run(what: &str, command: &mut Command) -> String {
    let output = command.output().await.unwrap_or_else(|error| panic!("{what}: cannot be started: {error}"));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what} fails with {}:\n{said}", output.status);
    said
}

/// A virtual environment with the pinned SDKs under the target directory; built once per set of versions.
async fn python() -> PathBuf {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sdk-venv");
    let (python, stamp) = (venv.join("bin/python"), venv.join("installed.txt"));
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == REQUIREMENTS) {
        return python;
    }
    run("python3 -m venv", Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv)).await;
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/requirements.txt");
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(requirements);
    run("pip install of the SDKs (is PyPI within reach?)", &mut pip).await;
    std::fs::write(&stamp, REQUIREMENTS).unwrap();
    python
}

#[tokio::test]
async fn the_official_sdks_accept_all_it_says() {
    let python = python().await;
    let simulator = super::started(Settings::default()).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/check_sdks.py");
    let mut check = Command::new(python);
    check.arg(script).arg(simulator.base_url()).env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
    for name in
        ["GOOGLE_API_KEY", "GEMINI_API_KEY", "GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_API_VERSION", "OPENAI_BASE_URL"]
    {
        check.env_remove(name);
    }
    let said = run("tests/sdk/check_sdks.py", check.kill_on_drop(true)).await;
    assert!(said.contains("20 checks passed"), "{said}");
}
