//! What somebody may have meant who wrote a word that does not exist.

/// `did you mean …?` for the nearest of `known`, else the list of them.
pub(crate) fn did_you_mean(word: &str, known: &[&str]) -> String {
    match nearest(word, known) {
        Some(name) => format!("did you mean {name:?}?"),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// The one of `known` that is so near that `word` is a slip of the pen.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase();
    known
        .iter()
        .map(|candidate| (distance(&word, &candidate.to_lowercase()), *candidate))
        .filter(|(distance, candidate)| *distance <= 2 && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many characters to insert, delete or replace to come from one word to the other (Levenshtein). Words too long
/// to be a slip of the pen count as infinitely far.
fn distance(from: &str, to: &str) -> usize {
    const LONGEST: usize = 64;
    if from.len() > LONGEST || to.len() > LONGEST {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (index, left) in from.chars().enumerate() {
        let mut next = vec![index + 1];
        for ((right, diagonal), above) in to.chars().zip(&row).zip(row.iter().skip(1)) {
            let before = next.last().map_or(0, |before| before + 1);
            let replaced = diagonal + usize::from(left != right);
            next.push(before.min(above + 1).min(replaced));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_gets_the_nearest_name_and_anything_else_the_list() {
        let known = ["image", "command", "maxRunTime"];
        let cases = [
            ("imagee", "did you mean \"image\"?"),
            ("maxruntime", "did you mean \"maxRunTime\"?"),
            ("comand", "did you mean \"command\"?"),
            ("timeout", "known here: image, command, maxRunTime"),
        ];
        for (word, expected) in cases {
            assert_eq!(did_you_mean(word, &known), expected, "{word}");
        }
        assert!(did_you_mean(&"image".repeat(100), &known).starts_with("known here"));
    }

    #[test]
    fn the_distance_counts_edits() {
        let cases = [("", "", 0), ("a", "", 1), ("", "ab", 2), ("kitten", "sitting", 3), ("same", "same", 0)];
        for (from, to, expected) in cases {
            assert_eq!(distance(from, to), expected, "{from} {to}");
            assert_eq!(distance(to, from), expected, "{to} {from}");
        }
    }
}
