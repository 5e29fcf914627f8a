//! The word that was probably meant.

/// The nearest of several words, where one is near enough to be a slip of the hand: a third of its letters at most.
pub(crate) fn nearest<'a>(word: &str, among: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    among
        .map(|known| (distance(known, word), known))
        .min()
        .filter(|(edits, known)| *edits <= known.len().max(3) / 3)
        .map(|(_, known)| known)
}

/// The number of single-character edits between two words.
pub(crate) fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (above + 1)
                .min(row[j] + 1)
                .min(diagonal + usize::from(a != *b));
            diagonal = above;
        }
    }
    row[other.len()]
}
