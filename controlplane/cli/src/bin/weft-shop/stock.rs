//! Stock levels over TCP: the server greets first, then answers `COUNT sku` and `TAKE sku n` line by line.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::Listen;

pub(crate) const GREETING: &str = "stock ready";
/// A longer line ends the conversation.
const MAX_LINE: u64 = 256;

type Shelves = Arc<Mutex<HashMap<String, u64>>>;

pub(crate) async fn serve(listen: Listen) -> anyhow::Result<()> {
    let listener = listen.listener().await?;
    let shelves: Shelves = Arc::new(Mutex::new(
        [("tea", 1_000_000), ("coffee", 1_000_000), ("cake", 24)].map(|(sku, count)| (sku.to_owned(), count)).into(),
    ));
    let end = crate::told_to_end();
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => return Ok(()),
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    // Out of descriptors, perhaps: the next attempt would fail at once, too.
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                };
                let shelves = Arc::clone(&shelves);
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &shelves).await {
                        eprintln!("stock: {error}");
                    }
                });
            }
        }
    }
}

async fn converse(stream: TcpStream, shelves: &Shelves) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    writer.write_all(format!("{GREETING}\n").as_bytes()).await?;
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = String::new();
        let read = (&mut reader).take(MAX_LINE).read_line(&mut line).await?;
        if read == 0 || !line.ends_with('\n') {
            return Ok(());
        }
        let answer = answer(line.trim(), shelves);
        writer.write_all(format!("{answer}\n").as_bytes()).await?;
    }
}

fn answer(line: &str, shelves: &Shelves) -> String {
    let mut shelves = shelves.lock().unwrap_or_else(PoisonError::into_inner);
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["COUNT", sku] => shelves.get(*sku).map_or_else(|| "ERR unknown".to_owned(), |count| format!("OK {count}")),
        ["TAKE", sku, number] => match (shelves.get_mut(*sku), number.parse::<u64>()) {
            (Some(count), Ok(number)) if number <= *count => {
                *count -= number;
                format!("OK {count}")
            }
            (Some(count), Ok(_)) => format!("ERR only {count}"),
            (None, _) => "ERR unknown".to_owned(),
            (_, Err(_)) => "ERR not a number".to_owned(),
        },
        _ => "ERR COUNT sku | TAKE sku n".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shelves_answer() {
        let shelves: Shelves = Arc::new(Mutex::new(HashMap::from([("tea".to_owned(), 3)])));
        let check = |line: &str, expect: &str| assert_eq!(answer(line, &shelves), expect, "{line}");
        check("COUNT tea", "OK 3");
        check("TAKE tea 2", "OK 1");
        check("TAKE tea 2", "ERR only 1");
        check("TAKE tea x", "ERR not a number");
        check("COUNT gold", "ERR unknown");
        check("", "ERR COUNT sku | TAKE sku n");
    }
}
