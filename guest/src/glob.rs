//! Patterns of KEYS and SCAN: `*`, `?`, `[a-c]`, `[^x]`, and a backslash before what stands for itself.

/// Whether `text` matches `pattern`. Takes time in proportion to the product of both lengths at worst: only the last `*` is ever
/// tried again.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut position) = (0, 0);
    let mut again = None;
    loop {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            again = Some((at, position));
            continue;
        }
        let step = match text.get(position) {
            None if at == pattern.len() => return true,
            None => None,
            Some(byte) => one(&pattern[at..], *byte),
        };
        if let Some(bytes) = step {
            at += bytes;
            position += 1;
            continue;
        }
        match again {
            Some((after, from)) if from < text.len() => {
                (at, position) = (after, from + 1);
                again = Some((after, from + 1));
            }
            _ => return false,
        }
    }
}

/// How much of the pattern stands for one byte, if it can be this one.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', class @ ..] => {
            let (contains, bytes) = class_contains(class, byte);
            contains.then_some(1 + bytes)
        }
        [b'\\', literal, ..] => (*literal == byte).then_some(2),
        [literal, ..] => (*literal == byte).then_some(1),
    }
}

/// Whether a class, from behind its bracket on, contains `byte`; and how long it is. One that does not end, ends with the pattern.
fn class_contains(class: &[u8], byte: u8) -> (bool, usize) {
    let inverted = class.first() == Some(&b'^');
    let mut at = usize::from(inverted);
    let mut contains = false;
    loop {
        match &class[at..] {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', literal, ..] => {
                contains |= *literal == byte;
                at += 2;
            }
            [from, b'-', to, ..] => {
                contains |= (*from.min(to)..=*from.max(to)).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                contains |= *literal == byte;
                at += 1;
            }
        }
    }
    (contains != inverted, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        let cases: &[(&str, &str, bool)] = &[
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h*llo", "hell", false),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("h[a-c]llo", "hdllo", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "ab ab a", false),
            ("**x", "x", true),
            ("[\\]]", "]", true),
            ("[abc", "b", true),
            ("key:*:name", "key:12:name", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), *expected, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        assert!(matches(&b"a*".repeat(50), &b"a".repeat(5000)));
        assert!(!matches(&[b"a*".repeat(50), b"b".to_vec()].concat(), &b"a".repeat(5000)));
    }
}
