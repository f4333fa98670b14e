//! File names: patterns with `*`, and the natural order.

use std::cmp::Ordering;

/// What a pattern found in a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    /// The part of the path that the pattern covers.
    pub(crate) text: String,
    /// What each `*` stands for.
    pub(crate) stars: Vec<String>,
}

/// Matches a pattern such as `images/*.tif` against the end of a path. `*` stands for any text without `/`; what comes before
/// the covered part may be anything, so that it does not matter from which folder a user starts.
pub(crate) fn match_end(pattern: &str, path: &str) -> Option<Match> {
    let wanted: Vec<&str> = pattern.split('/').collect();
    let parts: Vec<&str> = path.split('/').collect();
    let tail = parts.get(parts.len().checked_sub(wanted.len())?..)?;
    let mut stars = Vec::new();
    for (pattern, part) in wanted.iter().zip(tail) {
        if !match_part(pattern, part, &mut stars) {
            return None;
        }
    }
    Some(Match { text: tail.join("/"), stars })
}

/// One path component. Every star but the last takes as little as it can.
fn match_part(pattern: &str, text: &str, stars: &mut Vec<String>) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let pieces: Vec<&str> = pieces.collect();
    let Some((last, middle)) = pieces.split_last() else { return rest.is_empty() };
    for piece in middle {
        let Some(at) = rest.find(piece) else { return false };
        stars.push(rest[..at].to_owned());
        rest = &rest[at + piece.len()..];
    }
    match rest.strip_suffix(last) {
        Some(star) => {
            stars.push(star.to_owned());
            true
        }
        None => false,
    }
}

/// Python's `natsort`: runs of digits compare as numbers, the rest as text.
pub(crate) fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let ((a_text, a_rest), (b_text, b_rest)) = (run(a, false), run(b, false));
        let ((a_digits, a_rest), (b_digits, b_rest)) = (run(a_rest, true), run(b_rest, true));
        let order = a_text.cmp(b_text).then_with(|| match (a_digits.is_empty(), b_digits.is_empty()) {
            (false, false) => {
                let (a, b) = (a_digits.trim_start_matches('0'), b_digits.trim_start_matches('0'));
                a.len().cmp(&b.len()).then_with(|| a.cmp(b))
            }
            (a, b) => b.cmp(&a),
        });
        if order != Ordering::Equal || (a_rest.is_empty() && b_rest.is_empty()) {
            return order.then_with(|| a_rest.len().cmp(&b_rest.len()));
        }
        (a, b) = (a_rest, b_rest);
    }
}

/// Splits off the leading run of digits, or of anything else.
fn run(text: &str, digits: bool) -> (&str, &str) {
    text.split_at(text.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(text.len()))
}

/// The last component.
pub(crate) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The last component without its extension.
pub(crate) fn stem(path: &str) -> &str {
    let name = file_name(path);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// The folder part, empty if there is none.
pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_the_end_of_a_path() {
        let found = match_end("test/*_img.png", "cellpose/cyto/test/007_img.png").unwrap();
        assert_eq!((found.text.as_str(), found.stars), ("test/007_img.png", vec!["007".to_owned()]));
        assert_eq!(match_end("a*/b*c", "x/a1/b2c").unwrap().stars, ["1", "2"]);
        assert_eq!(match_end("*-x*.tif", "a-x-x1.tif").unwrap().stars, ["a", "-x1"]);
        for (pattern, path) in
            [("test/*.png", "train/1.png"), ("*.png", "a.tif"), ("a/b/c", "b/c"), ("abc*bcd", "abcd"), ("x", "xy")]
        {
            assert_eq!(match_end(pattern, path), None, "{pattern} {path}");
        }
    }

    #[test]
    fn numbers_compare_as_numbers() {
        let mut names = vec!["b/a", "a10", "a9", "a", "10", "9", "A1", "a09b", "a9a", "B/10_x", "B/9_x"];
        names.sort_by(|a, b| natural(a, b));
        // natsort.natsorted of the same list.
        assert_eq!(names, ["9", "10", "A1", "B/9_x", "B/10_x", "a", "a9", "a9a", "a09b", "a10", "b/a"]);
        assert_eq!(natural("x1", "x1"), Ordering::Equal);
    }

    #[test]
    fn names_fall_apart() {
        assert_eq!((file_name("a/b.c.tif"), stem("a/b.c.tif"), parent("a/b.c.tif")), ("b.c.tif", "b.c", "a"));
        assert_eq!((file_name("x"), stem("x"), parent("x")), ("x", "x", ""));
    }
}
