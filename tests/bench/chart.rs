//! The picture: a bar chart for each row.

use std::{io, path::Path};

use svg::{
    Document,
    node::element::{Group, Rectangle, Text, Title},
};

use crate::{
    peer::{Name, Peer},
    result::Results,
    work::{Unit, Work},
};

const WIDTH: f64 = 820.0;
const MARGIN: f64 = 16.0;
const HEAD_HEIGHT: f64 = 30.0;
const BAR_HEIGHT: f64 = 18.0;
const GAP: f64 = 4.0;
/// Where bars begin: to the left of it stands who they are of.
const BARS_AT: f64 = 270.0;
/// What stands to the right of a bar.
const FIGURE_WIDTH: f64 = 90.0;

const OURS: &str = "#1f6f8b";
const THEIRS: &str = "#b4bec6";
const INK: &str = "#24292f";

/// Draws what was measured without a busy loop.
pub(crate) fn write(
    path: &Path,
    peers: &[Peer],
    rows: &[Work],
    results: &Results,
) -> io::Result<()> {
    let mut document = Document::new()
        .set("font-family", "system-ui, sans-serif")
        .set("font-size", 12)
        .add(Title::new("Berth beside other registries"));
    let (mut bars, mut at) = (Group::new(), MARGIN);
    for row in rows {
        let measured: Vec<(Name, f64)> = peers
            .iter()
            .filter_map(|peer| Some((peer.name, results.middle(*row, peer.name, false)?.median)))
            .collect();
        if !measured.is_empty() {
            (bars, at) = chart(bars, at, *row, &measured);
        }
    }
    let paper = Rectangle::new().set("width", "100%").set("height", "100%").set("fill", "#ffffff");
    document = document.set("viewBox", (0, 0, WIDTH, at)).add(paper).add(bars);
    svg::save(path, &document)
}

fn chart(mut bars: Group, top: f64, row: Work, measured: &[(Name, f64)]) -> (Group, f64) {
    let better = match row.unit() {
        Unit::Seconds => "shorter is better",
        Unit::PerSecond => "longer is better",
    };
    let head = format!("{} ({better})", row.words());
    bars = bars.add(text(head, MARGIN, top + 18.0).set("font-weight", "bold"));
    let longest = measured.iter().map(|(_, figure)| *figure).fold(0.0, f64::max);
    let mut at = top + HEAD_HEIGHT;
    for (name, figure) in measured {
        let length = figure / longest * (WIDTH - BARS_AT - FIGURE_WIDTH - MARGIN);
        let fill = if name.is_berth() { OURS } else { THEIRS };
        let bar = Rectangle::new()
            .set("x", BARS_AT)
            .set("y", at)
            .set("width", format!("{:.1}", length.max(1.0)))
            .set("height", BAR_HEIGHT)
            .set("fill", fill);
        let base = at + BAR_HEIGHT - 5.0;
        bars = bars
            .add(text(name.to_string(), BARS_AT - 8.0, base).set("text-anchor", "end"))
            .add(bar)
            .add(text(row.unit().told(*figure), BARS_AT + length + 6.0, base));
        at += BAR_HEIGHT + GAP;
    }
    (bars, at + MARGIN)
}

fn text(words: String, x: f64, y: f64) -> Text {
    let (x, y) = (format!("{x:.1}"), format!("{y:.1}"));
    Text::new(words).set("x", x).set("y", y).set("fill", INK)
}
