//! Lists in statements, in words that every database speaks: a place for each value, where SQLite
//! alone would take an array of JSON.
//!
//! A long list is cut into parts, and each part is filled up to a power of two, so that a statement
//! has few forms, which connections keep prepared.

use std::iter;

/// Values, or rows of them, in one statement: many fewer than SQLite and PostgreSQL allow, since
/// SQLite looks for each place among all of them, one by one.
const PART_MAX: usize = 128;

/// The parts of a list, each filled up with `filler`.
pub(super) fn filled<'v, T>(values: &'v [T], filler: &'v T) -> impl Iterator<Item = Vec<&'v T>> {
    values.chunks(PART_MAX).map(move |part| {
        part.iter().chain(iter::repeat(filler)).take(part.len().next_power_of_two()).collect()
    })
}

/// The parts of a list, each filled up with a value that it has already.
pub(super) fn parts<T>(values: &[T]) -> impl Iterator<Item = Vec<&T>> {
    values.first().into_iter().flat_map(|first| filled(values, first))
}

/// Places for the values of a part, the first of which is `$first`: what stands between the
/// parentheses of `IN`.
pub(super) fn places(first: usize, count: usize) -> String {
    joined((first..first + count).map(|number| format!("${number}")))
}

/// Places for pairs, each a row for `VALUES`, which begins with `head`: `(head, $3, $4), …`.
pub(super) fn pairs(head: &str, first: usize, count: usize) -> String {
    joined((0..count).map(|pair| {
        let number = first + 2 * pair;
        format!("({head}${number}, ${})", number + 1)
    }))
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_few_forms_and_loses_nothing() {
        for count in [0, 1, 2, 3, PART_MAX, PART_MAX + 1, 4096] {
            let values: Vec<usize> = (0..count).collect();
            let (mut seen, mut filled_up) = (Vec::new(), Vec::new());
            for (part, filled) in parts(&values).zip(filled(&values, &usize::MAX)) {
                assert!(part.len().is_power_of_two() && part.len() <= PART_MAX);
                assert_eq!(part.len(), filled.len());
                seen.extend(part.into_iter().copied());
                filled_up.extend(filled.into_iter().copied().filter(|it| *it != usize::MAX));
            }
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen, values);
            assert_eq!(filled_up, values);
        }
    }

    #[test]
    fn places_are_numbered_from_the_first() {
        assert_eq!(places(2, 3), "$2, $3, $4");
        assert_eq!(pairs("", 2, 2), "($2, $3), ($4, $5)");
        assert_eq!(pairs("$1, $2, ", 3, 1), "($1, $2, $3, $4)");
    }
}
