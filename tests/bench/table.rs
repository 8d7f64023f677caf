//! The figures as tables of Markdown.

use crate::{
    Options,
    goal::{GOALS, Goal, HTTP2, MEMORY_MIB},
    peer::{Name, Peer},
    result::Results,
    start::BCRYPT_COST,
    work::Work,
};

/// Prints all of them.
pub(crate) fn print(
    options: &Options,
    peers: &[Peer],
    missing: &[String],
    rows: &[Work],
    results: &Results,
) {
    println!(
        "Medians of {} rounds, all peers in turns; in brackets half of the distance of the least and \
         the largest figure. A load stands for {} s, a large blob has {} MiB, and of what is many there \
         are {}. Berth and `commit` sync every blob to the disk before they answer; the others do not. \
         htpasswd files have bcrypt hashes of cost {BCRYPT_COST}.",
        options.rounds, options.secs, options.blob_mib, options.many
    );
    if !missing.is_empty() {
        println!("\nNot measured: {}.", missing.join("; "));
    }
    let names: Vec<Name> = peers.iter().map(|peer| peer.name).collect();
    println!();
    figures(&names, rows, results, false);
    // That of single rows tells nothing, and is not read.
    if options.rows.is_empty() {
        memory(&names, results);
    }
    if !options.quiet_only {
        println!("\nThe same beside a busy loop at normal priority on one core:\n");
        figures(&names, rows, results, true);
    }
    goals(results, options);
    for failure in results.failures() {
        println!("\nFailed: {failure}.");
    }
}

fn figures(names: &[Name], rows: &[Work], results: &Results, is_busy: bool) {
    let heads: Vec<String> = names.iter().map(ToString::to_string).collect();
    println!("| what | {} |", heads.join(" | "));
    println!("|---|{}", "---|".repeat(names.len()));
    for row in rows {
        let cells = names.iter().map(|name| match results.middle(*row, *name, is_busy) {
            Some(middle) => {
                format!("{} [{:.0} %]", row.unit().told(middle.median), middle.spread * 100.0)
            }
            None => "–".to_owned(),
        });
        println!("| {} | {} |", row.words(), cells.collect::<Vec<_>>().join(" | "));
    }
}

/// At rest and at most, of all processes of each peer together.
fn memory(names: &[Name], results: &Results) {
    let cells = names.iter().map(|name| match results.memory(*name) {
        Some(memory) => format!("{:.0} / {:.0} MiB", memory.now, memory.most),
        None => "–".to_owned(),
    });
    let cells = cells.collect::<Vec<_>>().join(" | ");
    println!("| resident memory: at rest after the run / at most | {cells} |");
}

fn goals(results: &Results, options: &Options) {
    let is_measured = |goal: &Goal| goal.reached(results, false).is_some();
    if !GOALS.iter().any(is_measured) {
        return;
    }
    println!("\n| what | who | ahead of | by | beside a busy loop | goal |");
    println!("|---|---|---|---|---|---|");
    for goal in GOALS {
        let Some((than, lead)) = goal.reached(results, false) else { continue };
        let busy = goal.reached(results, true).filter(|_| !options.quiet_only);
        let busy = busy.map_or_else(|| "–".to_owned(), |(_, lead)| format!("{lead:.2}×"));
        let (work, ours) = (goal.work.words(), goal.ours);
        let verdict = verdict(lead >= goal.least);
        println!("| {work} | {ours} | {than} | {lead:.2}× | {busy} | {}× {verdict} |", goal.least);
    }
    for (http2, http1, most) in HTTP2 {
        let ratio = |is_busy| {
            let two = results.middle(*http2, Name::BerthTls, is_busy)?.median;
            Some(two / results.middle(*http1, Name::BerthTls, is_busy)?.median)
        };
        let Some(quiet) = ratio(false) else { continue };
        let busy = ratio(true).map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}×"));
        let (work, verdict) = (http2.words(), verdict(quiet <= *most));
        let name = Name::BerthTls;
        println!(
            "| {work} | {name} | takes, of HTTP/1.1 | {quiet:.2}× | {busy} | ≤ {most}× {verdict} |"
        );
    }
    if let Some(memory) = results.memory(Name::BerthTls) {
        let (rest, most) = MEMORY_MIB;
        let verdict = verdict(memory.now <= rest && memory.most <= most);
        let name = Name::BerthTls;
        println!(
            "| resident memory, both servers | {name} | | {:.0} / {:.0} MiB | | ≤ {rest} / {most} MiB {verdict} |",
            memory.now, memory.most
        );
    }
}

pub(crate) fn verdict(is_reached: bool) -> &'static str {
    if is_reached { "reached" } else { "**missed**" }
}
