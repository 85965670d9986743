//! The clients of prices and stock: used by the frontend, and alone as probes whose output is evidence.

use std::io;

use anyhow::{Context, ensure};
use clap::Args;
use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::prices::wire::prices_client::PricesClient;
use crate::prices::wire::{QuoteRequest, WatchRequest};
use crate::{stock, tunnel};

#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// Host and port of the service.
    target: String,
}

/// A channel to prices that dials when it is used, through `grpc_proxy`.
pub(crate) fn prices_client(target: &str) -> anyhow::Result<PricesClient<Channel>> {
    let endpoint =
        Endpoint::from_shared(format!("http://{target}")).with_context(|| format!("{target}: not HOST:PORT"))?;
    let target = target.to_owned();
    let connector = service_fn(move |_: Uri| {
        let target = target.clone();
        async move {
            let stream = tunnel::connect(&["grpc_proxy"], &target).await;
            stream.map(TokioIo::new).map_err(|error| io::Error::other(format!("{error:#}")))
        }
    });
    Ok(PricesClient::new(endpoint.connect_with_connector_lazy(connector)))
}

/// A conversation with stock.
pub(crate) struct StockClient {
    stream: BufReader<TcpStream>,
}

impl StockClient {
    pub(crate) async fn connect(target: &str) -> anyhow::Result<Self> {
        let mut client = Self { stream: BufReader::new(tunnel::connect(&["ALL_PROXY", "all_proxy"], target).await?) };
        let greeting = client.line().await?;
        ensure!(greeting == stock::GREETING, "stock greets with {greeting:?}");
        Ok(client)
    }

    pub(crate) async fn ask(&mut self, line: &str) -> anyhow::Result<String> {
        self.stream.write_all(format!("{line}\n").as_bytes()).await.context("stock takes no request")?;
        self.line().await
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).await.context("stock gives no answer")?;
        ensure!(read > 0, "stock closed the connection");
        Ok(line.trim_end().to_owned())
    }
}

pub(crate) async fn prices(args: ProbeArgs) -> anyhow::Result<()> {
    let mut client = prices_client(&args.target)?;
    let item = |sku: &str, quantity| QuoteRequest { sku: sku.to_owned(), quantity };
    let unary = client.quote(item("tea", 2)).await.context("Quote")?.into_inner();
    let mut watch = client.watch(WatchRequest { sku: "tea".into(), times: 5 }).await.context("Watch")?.into_inner();
    let mut watched = Vec::new();
    while let Some(reply) = watch.message().await.context("Watch")? {
        watched.push(reply.cents);
    }
    let basket = tokio_stream::iter(vec![item("tea", 1), item("coffee", 1), item("cake", 1)]);
    let total = client.total(basket).await.context("Total")?.into_inner();
    let offers = tokio_stream::iter(vec![item("cake", 1), item("cake", 2)]);
    let haggle = client.haggle(offers).await.context("Haggle")?.into_inner();
    let haggled: Vec<u64> = haggle.filter_map(async |reply| reply.ok().map(|reply| reply.cents)).collect().await;
    let missing = client.quote(item("gold", 1)).await.err().map(|status| status.code());
    let report = json!({
        "unary_cents": unary.cents,
        "caller": unary.caller,
        "server_streaming": watched,
        "client_streaming": {"items": total.items, "cents": total.cents},
        "bidirectional": haggled,
        "unknown_sku": missing.map(|code| format!("{code:?}")),
    });
    print(&report)
}

pub(crate) async fn stock(args: ProbeArgs) -> anyhow::Result<()> {
    let mut client = StockClient::connect(&args.target).await?;
    let before = client.ask("COUNT tea").await?;
    let taken = client.ask("TAKE tea 1").await?;
    let unknown = client.ask("COUNT gold").await?;
    print(&json!({"greeting": stock::GREETING, "count": before, "take": taken, "unknown": unknown}))
}

fn print(report: &serde_json::Value) -> anyhow::Result<()> {
    use io::Write;
    writeln!(io::stdout().lock(), "{report}").context("cannot write to stdout")
}
