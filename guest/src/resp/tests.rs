use super::*;
use proptest::prelude::*;

/// All requests in `input`, fed in pieces that end at `cuts`; and the error at the end, if any.
fn requests(input: &[u8], cuts: &[usize]) -> (Vec<Vec<Vec<u8>>>, Option<ProtocolError>) {
    let mut parser = Parser::default();
    let mut found = Vec::new();
    let mut start = 0;
    let ends = cuts.iter().copied().filter(|cut| *cut < input.len()).chain([input.len()]);
    for end in ends {
        while start <= end {
            match parser.next(&input[start..end]) {
                Parsed::Incomplete { bytes } => {
                    assert!(bytes > end - start, "more is wanted than is there");
                    break;
                }
                Parsed::Error(error) => return (found, Some(error)),
                Parsed::Request { bytes } => {
                    let arguments = parser.arguments(&input[start..end]);
                    found.push((0..arguments.count()).map(|index| arguments.at(index).to_vec()).collect());
                    start += bytes;
                }
            }
        }
    }
    (found, None)
}

fn encoded(requests: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let mut reply = Reply { bytes_max: usize::MAX, ..Reply::default() };
    for request in requests {
        reply.array(request.len());
        request.iter().for_each(|argument| reply.bulk(argument));
    }
    reply.bytes
}

fn words(text: &[&str]) -> Vec<Vec<u8>> {
    text.iter().map(|word| word.as_bytes().to_vec()).collect()
}

#[test]
fn inline_requests_are_split_at_spaces_outside_of_quotes() {
    let line = b"  set \"a b\\x41\\n\" 'it\\'s' \r\n\r\nPING\n";
    let (found, error) = requests(line, &[]);
    assert_eq!(error, None);
    assert_eq!(found, [words(&["set", "a bA\n", "it's"]), words(&[]), words(&["PING"])]);
    for unbalanced in ["get \"a\r\n", "get 'a\r\n", "get \"a\"b\r\n"] {
        assert_eq!(requests(unbalanced.as_bytes(), &[]).1, Some(ProtocolError::Quotes));
    }
}

#[test]
fn what_is_not_the_protocol_is_named() {
    let cases: &[(&str, &str)] = &[
        ("*x\r\n", "invalid multibulk length"),
        ("*1000000\r\n", "invalid multibulk length"),
        ("*1\r\nPING", "expected '$', got 'P'"),
        ("*1\r\n$-1\r\n", "invalid bulk length"),
        ("*1\r\n$x\r\n", "invalid bulk length"),
        ("*1\r\n$1048577\r\n", "invalid bulk length"),
        ("*1\r\n$00000000000000000000000000000000001\r\n", "too big bulk count string"),
        ("*00000000000000000000000000000000001\r\n", "too big mbulk count string"),
    ];
    for (input, text) in cases {
        let error = requests(input.as_bytes(), &[]).1.map(|error| alloc::format!("{error}"));
        assert_eq!(error, Some(alloc::format!("ERR Protocol error: {text}")), "{input}");
    }
    let endless = [b'a'; LINE_BYTES_MAX + 1];
    assert_eq!(requests(&endless, &[1000, 2000]).1, Some(ProtocolError::InlineTooLong));
}

#[test]
fn requests_are_bounded() {
    let argument = b"x".repeat(ARGUMENT_BYTES_MAX);
    let fits = encoded(&[vec![argument.clone(); 3]]);
    assert_eq!(requests(&fits, &[]).0.len(), 1);
    let too_long = encoded(&[vec![argument; 5]]);
    assert_eq!(requests(&too_long, &[]).1, Some(ProtocolError::RequestTooLong));
}

#[test]
fn empty_and_negative_arrays_are_no_requests() {
    let (found, error) = requests(b"*0\r\n*-1\r\n*1\r\n$4\r\nPING\r\n", &[]);
    assert_eq!((found, error), (vec![words(&[]), words(&[]), words(&["PING"])], None));
}

#[test]
fn integers_are_those_of_redis() {
    for value in [0, 1, -1, 10, i64::MAX, i64::MIN] {
        assert_eq!(integer(Decimal::new(value).bytes()), Some(value));
    }
    for text in ["", "-", "+1", "01", "-0", " 1", "1 ", "9223372036854775808", "-9223372036854775809", "1.0"]
    {
        assert_eq!(integer(text.as_bytes()), None, "{text:?}");
    }
}

#[test]
fn a_reply_without_room_is_noted() {
    let mut reply = Reply { bytes_max: 20, ..Reply::default() };
    reply.bulk(b"0123456789");
    assert!(!reply.overflowed);
    reply.bulk(b"0123456789");
    assert!(reply.overflowed);
}

#[test]
fn errors_stay_on_their_line() {
    let mut reply = Reply::default();
    reply.error("ERR a\r\nb");
    assert_eq!(reply.bytes, b"-ERR a  b\r\n");
}

fn any_requests() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
    let argument = prop::collection::vec(any::<u8>(), 0..40);
    prop::collection::vec(prop::collection::vec(argument, 1..5), 1..6)
}

proptest! {
    #[test]
    fn requests_come_out_however_the_input_is_cut(
        sent in any_requests(),
        cuts in prop::collection::btree_set(0usize..600, 0..20),
    ) {
        let cuts: Vec<_> = cuts.into_iter().collect();
        prop_assert_eq!(requests(&encoded(&sent), &cuts), (sent, None));
    }

    #[test]
    fn any_input_means_the_same_however_it_is_cut(
        input in prop::collection::vec(prop::sample::select(b"*$12a\r\n\"' \\x0".to_vec()), 0..80),
        cuts in prop::collection::btree_set(0usize..80, 0..20),
    ) {
        let cuts: Vec<_> = cuts.into_iter().collect();
        prop_assert_eq!(requests(&input, &cuts), requests(&input, &[]));
    }
}
