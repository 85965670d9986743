//! Bodies split at every byte, and chunk frames that must not be taken.

use super::*;

/// Feeds `pieces` one after the other; what came out as text, trailers after a bar, and what was left over.
fn run(decoder: &mut Decoder, pieces: &[&[u8]]) -> Result<(String, String), Rejection> {
    let limits = HttpLimits::default();
    let mut buffer = ReadBuffer::new(b"");
    let mut out = String::new();
    let mut ended = false;
    for piece in pieces {
        buffer.bytes.extend_from_slice(piece);
        while !ended {
            match decoder.decode(&mut buffer, &limits)? {
                Decoded::Data(data) => out.push_str(std::str::from_utf8(&data).unwrap()),
                Decoded::Trailers(map) => out.push_str(&format!("|{map:?}")),
                Decoded::End => ended = true,
                Decoded::NeedMore => break,
            }
        }
    }
    assert_eq!(ended, decoder.is_done());
    if !ended {
        out.push_str("...");
    }
    Ok((out, String::from_utf8(buffer.bytes.to_vec()).unwrap()))
}

#[test]
fn chunks_survive_every_split() {
    let text: &[u8] = b"5\r\nhello\r\n1;a=\"b;c\"\r\n \r\n00a \t;x\r\n0123456789\r\n0\r\nx-sum: 1\r\ny: 2\r\n\r\nGET /";
    let expect = ("hello 0123456789|{\"x-sum\": \"1\", \"y\": \"2\"}".to_owned(), "GET /".to_owned());
    for first in 0..text.len() {
        for second in (first..text.len()).step_by(3) {
            let pieces = [&text[..first], &text[first..second], &text[second..]];
            assert_eq!(run(&mut Decoder::chunked(), &pieces).unwrap(), expect, "split at {first}, {second}");
        }
    }
    let single: Vec<&[u8]> = text.chunks(1).collect();
    assert_eq!(run(&mut Decoder::chunked(), &single).unwrap(), expect);
}

#[test]
fn lengths_survive_every_split_and_take_no_more() {
    let text: &[u8] = b"hello worldGET /";
    for first in 0..text.len() {
        let out = run(&mut Decoder::length(11), &[&text[..first], &text[first..]]).unwrap();
        assert_eq!(out, ("hello world".into(), "GET /".into()));
    }
    assert_eq!(run(&mut Decoder::length(0), &[b"GET /"]).unwrap(), (String::new(), "GET /".into()));
    assert_eq!(run(&mut Decoder::length(20), &[b"hello"]).unwrap().0, "hello...");
}

#[test]
fn malformed_chunks_end_the_connection() {
    for text in [
        "\r\n",
        ";x\r\n",
        "g\r\n",
        "-1\r\n",
        "+1\r\n",
        "0x1\r\n",
        " 1\r\n",
        "1\n",
        "1\rx",
        "1 1\r\n",
        "1;a\nb",
        "1;a\rb",
        "1;\0\r\n",
        "1\r\nab",
        "1\r\na\n",
        "1\r\na\rx",
        "1\r\na1\r\n",
        "10000000000000000\r\n",
        "fffffffffffffffff\r\n",
        "00000000000000001\r\n",
        "0\r\nbad trailer\r\n\r\n",
        "0\r\nx: y\n\r\n",
        "0\r\n folded: y\r\n\r\n",
    ] {
        let result = run(&mut Decoder::chunked(), &[text.as_bytes()]);
        assert!(
            matches!(result, Err(Rejection { refusal: Refusal::Chunk | Refusal::Malformed, .. })),
            "{text:?}: {result:?}"
        );
    }
}

#[test]
fn the_largest_size_does_not_overflow() {
    let (out, _) = run(&mut Decoder::chunked(), &[b"FFFFFFFFFFFFFFFF\r\nabc"]).unwrap();
    assert_eq!(out, "abc...");
}

#[test]
fn extensions_and_trailers_are_bounded() {
    let long = format!("1;{}", "a".repeat(17_000));
    assert!(matches!(
        run(&mut Decoder::chunked(), &[long.as_bytes()]),
        Err(Rejection { refusal: Refusal::ContentTooLarge, .. })
    ));
    let many = "1;aaaaaaaa\r\nx\r\n".repeat(3_000);
    assert!(matches!(
        run(&mut Decoder::chunked(), &[many.as_bytes()]),
        Err(Rejection { refusal: Refusal::ContentTooLarge, .. })
    ));
    let spaces = format!("1{}", " ".repeat(17_000));
    assert!(matches!(
        run(&mut Decoder::chunked(), &[spaces.as_bytes()]),
        Err(Rejection { refusal: Refusal::ContentTooLarge, .. })
    ));
    let trailers = format!("0\r\n{}\r\n", "x: y\r\n".repeat(20_000));
    assert!(run(&mut Decoder::chunked(), &[trailers.as_bytes()]).is_err());
    let endless = format!("0\r\nx: {}", "y".repeat(70_000));
    assert!(matches!(
        run(&mut Decoder::chunked(), &[endless.as_bytes()]),
        Err(Rejection { refusal: Refusal::HeadTooLarge, .. })
    ));
}

#[test]
fn a_large_read_is_shared_and_a_small_one_copied() {
    let mut buffer = ReadBuffer::new(&[b'x'; 40_000]);
    let large = buffer.take(30_000);
    let small = buffer.take(100);
    assert_eq!((large.len(), small.len(), buffer.bytes.len()), (30_000, 100, 9_900));
    drop(large);
    assert!(small.iter().all(|byte| *byte == b'x'));
}
