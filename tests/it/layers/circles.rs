//! Circles: what names, by however many others, what names it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::modules::Arrow;

/// Circles of files. A module and its own children may name each other.
pub(super) fn of_files(arrows: &BTreeSet<Arrow>) -> Vec<String> {
    let others = arrows.iter().filter(|arrow| !arrow.is_to_own_child);
    circles(others.map(|arrow| (arrow.from.clone(), arrow.to.clone())))
}

/// Circles of what stands side by side in a folder, with all that is in it.
pub(super) fn of_folders(arrows: &BTreeSet<Arrow>) -> Vec<String> {
    circles(arrows.iter().filter_map(side_by_side))
}

/// The two below the folder that both ends are in; nothing where one end is the folder's own module.
fn side_by_side(arrow: &Arrow) -> Option<(String, String)> {
    let from: Vec<&str> = arrow.from_module.split("::").collect();
    let to: Vec<&str> = arrow.module.split("::").collect();
    let differ = from.iter().zip(&to).position(|(from, to)| from != to)?;
    (!from[0].is_empty() && !to[0].is_empty())
        .then(|| (from[..=differ].join("::"), to[..=differ].join("::")))
}

/// A circle for everything that is in one, unless an earlier one is about it.
fn circles(arrows: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let mut below: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (from, to) in arrows {
        below.entry(from).or_default().insert(to);
    }
    let (mut told, mut circles) = (BTreeSet::new(), Vec::new());
    for start in below.keys() {
        if !told.contains(start.as_str())
            && let Some(way) = circle(start, &below)
        {
            circles.push(way.join(" -> "));
            told.extend(way);
        }
    }
    circles
}

/// The shortest way from `start` back to it.
fn circle<'n>(
    start: &'n str,
    below: &'n BTreeMap<String, BTreeSet<String>>,
) -> Option<Vec<&'n str>> {
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for next in below.get(at).into_iter().flatten() {
            if next == start {
                let mut way = vec![start, at];
                while let Some(before) = came_from.get(way[way.len() - 1]) {
                    way.push(before);
                }
                way.reverse();
                return Some(way);
            }
            if !came_from.contains_key(next.as_str()) {
                came_from.insert(next, at);
                queue.push_back(next);
            }
        }
    }
    None
}
