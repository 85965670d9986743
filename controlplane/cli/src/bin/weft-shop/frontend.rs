//! The shop's pages: one request fans out to an HTTP, a gRPC and a TCP service.

use anyhow::{Context, bail};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::Listen;
use crate::prices::wire::QuoteRequest;
use crate::prices::wire::prices_client::PricesClient;
use crate::probe::{self, StockClient};

/// Headers that are passed on so that the mesh's traces and fault rules see one request.
const PASSED_ON: [&str; 3] = ["traceparent", "x-request-id", "x-demo"];

#[derive(Clone)]
struct Shop {
    http: reqwest::Client,
    prices: PricesClient<Channel>,
}

pub(crate) async fn serve(listen: Listen) -> anyhow::Result<()> {
    let http = reqwest::Client::builder().build().context("cannot set up the HTTP client")?;
    let shop = Shop { http, prices: probe::prices_client("prices:80")? };
    let router = Router::new()
        .route("/", get(async || "Weft's shop: try /product/tea\n"))
        .route("/product/{sku}", get(product))
        .route("/healthz", get(async || "ok"))
        .with_state(shop);
    crate::serve_http(listen, router).await
}

async fn product(State(shop): State<Shop>, Path(sku): Path<String>, headers: HeaderMap) -> Response {
    let caller = crate::reviews::caller(&headers);
    match tokio::try_join!(reviews(&shop, &sku, &headers), price(&shop, &sku), in_stock(&sku)) {
        Ok((reviews, cents, stock)) => {
            let release = reviews["release"].as_str().unwrap_or_default().to_owned();
            let body = json!({"sku": sku, "caller": caller, "cents": cents, "stock": stock, "reviews": reviews});
            ([("x-shop-release", release)], Json(body)).into_response()
        }
        Err(error) => (StatusCode::BAD_GATEWAY, Json(json!({"error": format!("{error:#}")}))).into_response(),
    }
}

async fn reviews(shop: &Shop, sku: &str, headers: &HeaderMap) -> anyhow::Result<Value> {
    let mut request = shop.http.get(format!("http://reviews/reviews/{sku}"));
    for name in PASSED_ON {
        if let Some(value) = headers.get(name) {
            request = request.header(name, value);
        }
    }
    let answer = request.send().await.context("reviews can't be reached")?;
    let status = answer.status();
    if !status.is_success() {
        bail!("reviews answered {status}: {}", answer.text().await.unwrap_or_default().trim());
    }
    answer.json().await.context("reviews answered no JSON")
}

async fn price(shop: &Shop, sku: &str) -> anyhow::Result<u64> {
    let request = QuoteRequest { sku: sku.to_owned(), quantity: 1 };
    Ok(shop.prices.clone().quote(request).await.context("prices")?.into_inner().cents)
}

async fn in_stock(sku: &str) -> anyhow::Result<String> {
    StockClient::connect("stock:7000").await?.ask(&format!("COUNT {sku}")).await
}
