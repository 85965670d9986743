//! The file with the first operator's token, where it can't be written.

use super::*;

#[tokio::test]
async fn a_token_file_that_cannot_be_written_makes_no_tokens_and_stops_no_start() {
    let dir = tempfile::tempdir().unwrap();
    Control::start(dir.path()).await.app.stop().await;
    std::fs::remove_file(dir.path().join("operator.token")).unwrap();
    // A folder of this name lets nobody write the file.
    std::fs::create_dir(dir.path().join("operator.token.new")).unwrap();
    let control = Control::start(dir.path()).await;
    // The control plane does the same by itself now and then, one after the other only.
    while control.metrics().await.contains("weft_control_intermediate_not_after_seconds 0\n") {}
    keep_operator_token(&control.app.hub).await;
    keep_operator_token(&control.app.hub).await;
    assert!(control.app.hub.tokens().await.unwrap().is_empty(), "nobody could ever read them");
    let gauge = "weft_control_upkeep_put_off{what=\"operator_token\"}";
    assert!(control.metrics().await.contains(&format!("{gauge} 1")));
    std::fs::remove_dir(dir.path().join("operator.token.new")).unwrap();
    keep_operator_token(&control.app.hub).await;
    assert_eq!(control.call("get", "/api/v1/proxies", Value::Null).await.0, 200);
    assert!(control.metrics().await.contains(&format!("{gauge} 0")));
}
