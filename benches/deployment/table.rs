//! Tables as the other benches print them.

use std::fmt::Display;

/// Prints a heading; its first cell is empty.
pub fn heading(cells: &[&str]) {
    println!("\n|  | {} |\n|---|{}", cells.join(" | "), "---|".repeat(cells.len()));
}

/// Prints a row.
pub fn row(name: &str, cells: &[&dyn Display]) {
    let cells: Vec<String> = cells.iter().map(ToString::to_string).collect();
    println!("| {name} | {} |", cells.join(" | "));
}

/// The median; the lower one of two.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

/// The arithmetic mean.
#[expect(clippy::cast_precision_loss, reason = "there are few values")]
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// `min / median / max`.
pub fn spread(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    format!("{least:.2} / {:.2} / {most:.2}", median(values))
}
