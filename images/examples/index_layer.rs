//! How fast a layer becomes an image: `cargo run --release --package images --example index_layer -- LAYER.tar…`
//!
//! Every layer is indexed from the page cache; then all are merged and
//! written as one image. The best of five rounds is printed, beside the copying of the same bytes.
use std::error::Error;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use images::erofs::Plan;
use images::layer::{Budget, LayerIndex, Parts, SplitReader, index_layer};
use images::limits::Limits;
use images::tree::merge;

const ROUNDS: u32 = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let mut layers = Vec::new();
    for layer in std::env::args_os().skip(1) {
        layers.push(measure_layer(Path::new(&layer))?);
    }
    let limits = Limits::default();
    let (time, tree) = best(|| Ok(merge(&layers, &limits)?))?;
    println!("merge {} layers: {time:.1?}", layers.len());
    let (time, (inodes, bytes)) = best(|| {
        let plan = Plan::new(&tree, &layers)?;
        let written = (plan.inodes(), plan.bytes());
        plan.write([0; 16], &mut tempfile::tempfile()?)?;
        Ok(written)
    })?;
    println!("write {inodes} inodes, {bytes} bytes: {time:.1?}");
    Ok(())
}

fn measure_layer(path: &Path) -> Result<LayerIndex, Box<dyn Error>> {
    let mut tar = File::open(path)?;
    let bytes = tar.metadata()?.len();
    let limits = Limits::default();
    let rate = |time: Duration| bytes as f64 / 1e6 / time.as_secs_f64();
    let (time, ()) = best(|| copy(&mut tar))?;
    println!("{}: {} MB", path.display(), bytes / 1_000_000);
    println!("  copy in mebibytes: {time:.1?}, {:.0} MB/s", rate(time));
    let mut index_with = |split: Option<&File>| {
        tar.rewind()?;
        let (data, index) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let parts = Parts { data: &data, index: &index, split, disk: None };
        index_layer(&mut tar, &parts, &Budget::new(&limits), &AtomicBool::new(false))?;
        Ok((data, index))
    };
    let (without, (_, index)) = best(|| index_with(None))?;
    let (opening, index) = best(|| Ok(LayerIndex::open(index.try_clone()?)?))?;
    let entries = index.entries();
    println!("  index {entries} entries: {without:.1?}, {:.0} MB/s; open: {opening:.1?}", rate(without));
    let split = tempfile::tempfile()?;
    let (time, (data, _)) = best(|| {
        split.set_len(0)?;
        index_with(Some(&split))
    })?;
    let bytes = split.metadata()?.len();
    println!(
        "  and keep what is between the contents: {time:.1?}; {bytes} bytes, {} an entry",
        bytes / entries.max(1)
    );
    let (time, ()) = best(|| {
        let mut again = SplitReader::new(split.try_clone()?, data.try_clone()?)?;
        Ok(std::io::copy(&mut again, &mut std::io::sink()).map(drop)?)
    })?;
    println!("  write the stream again: {time:.1?}, {:.0} MB/s", rate(time));
    Ok(index)
}

/// The floor: the same bytes from file to file.
fn copy(tar: &mut File) -> Result<(), Box<dyn Error>> {
    tar.rewind()?;
    let mut out = tempfile::tempfile()?;
    let mut block = vec![0; 1 << 20];
    loop {
        match tar.read(&mut block)? {
            0 => return Ok(out.flush()?),
            count => out.write_all(block.get(..count).unwrap_or_default())?,
        }
    }
}

fn best<T>(mut work: impl FnMut() -> Result<T, Box<dyn Error>>) -> Result<(Duration, T), Box<dyn Error>> {
    let mut best: Option<(Duration, T)> = None;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let result = work()?;
        let time = start.elapsed();
        if best.as_ref().is_none_or(|(shortest, _)| time < *shortest) {
            best = Some((time, result));
        }
    }
    best.ok_or_else(|| "no round was run".into())
}
