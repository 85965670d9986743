//! Prices over gRPC: the four call kinds, errors as gRPC status.

use std::pin::Pin;

use anyhow::Context;
use futures_util::{Stream, StreamExt};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::Listen;

/// Code that tonic generates from `proto/shop.proto`.
#[expect(clippy::allow_attributes_without_reason, clippy::too_many_lines, unreachable_pub, reason = "generated code")]
pub(crate) mod wire {
    tonic::include_proto!("shop.v1");
}

use wire::prices_server::{Prices, PricesServer};
use wire::{QuoteReply, QuoteRequest, TotalReply, WatchRequest};

/// No watch lasts longer than this many messages.
const MAX_WATCH: u32 = 10_000;

pub(crate) async fn serve(listen: Listen) -> anyhow::Result<()> {
    let incoming = TcpListenerStream::new(listen.listener().await?);
    tonic::transport::Server::builder()
        .add_service(PricesServer::new(PriceList))
        .serve_with_incoming_shutdown(incoming, crate::told_to_end())
        .await
        .context("the gRPC server failed")
}

struct PriceList;

fn cents(sku: &str) -> Result<u64, Status> {
    match sku {
        "tea" => Ok(450),
        "coffee" => Ok(380),
        "cake" => Ok(520),
        _ => Err(Status::not_found(format!("the shop sells no {sku:?}"))),
    }
}

fn quote(request: &QuoteRequest, caller: &str) -> Result<QuoteReply, Status> {
    let cents = cents(&request.sku)?.saturating_mul(u64::from(request.quantity.max(1)));
    Ok(QuoteReply { sku: request.sku.clone(), cents, caller: caller.to_owned() })
}

fn caller(metadata: &MetadataMap) -> String {
    crate::reviews::caller(&metadata.clone().into_headers())
}

type Quotes = Pin<Box<dyn Stream<Item = Result<QuoteReply, Status>> + Send>>;

#[tonic::async_trait]
impl Prices for PriceList {
    type WatchStream = Quotes;
    type HaggleStream = Quotes;

    async fn quote(&self, request: Request<QuoteRequest>) -> Result<Response<QuoteReply>, Status> {
        let caller = caller(request.metadata());
        Ok(Response::new(quote(request.get_ref(), &caller)?))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let caller = caller(request.metadata());
        let WatchRequest { sku, times } = request.into_inner();
        let price = cents(&sku)?;
        let replies = (0..u64::from(times.min(MAX_WATCH))).map(move |tick| {
            Ok(QuoteReply { sku: sku.clone(), cents: price.saturating_add(tick), caller: caller.clone() })
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(replies))))
    }

    async fn total(&self, request: Request<Streaming<QuoteRequest>>) -> Result<Response<TotalReply>, Status> {
        let mut basket = request.into_inner();
        let mut total = TotalReply::default();
        while let Some(item) = basket.message().await? {
            total.items = total.items.saturating_add(1);
            total.cents = total.cents.saturating_add(quote(&item, "")?.cents);
        }
        Ok(Response::new(total))
    }

    async fn haggle(&self, request: Request<Streaming<QuoteRequest>>) -> Result<Response<Self::HaggleStream>, Status> {
        let caller = caller(request.metadata());
        let replies = request.into_inner().map(move |item| item.and_then(|item| quote(&item, &caller)));
        Ok(Response::new(Box::pin(replies)))
    }
}
