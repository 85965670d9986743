//! etcd's messages, generated from `proto/etcd.proto`, and short ways to make those that the store sends.

use bytes::Bytes;

pub(super) use self::v3::compare::{CompareResult, CompareTarget, TargetUnion};
pub(super) use self::v3::request_op::Request;
pub(super) use self::v3::response_op::Response;
pub(super) use self::v3::*;

/// The generated code.
#[allow(
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    clippy::wildcard_enum_match_arm,
    reason = "generated code"
)]
mod v3 {
    tonic::include_proto!("etcdserverpb");
}

pub(super) fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

pub(super) fn put(key: Bytes, value: Bytes) -> RequestOp {
    op(Request::RequestPut(PutRequest { key, value, ..PutRequest::default() }))
}

pub(super) fn put_with(key: Bytes, value: Bytes, lease: i64) -> RequestOp {
    op(Request::RequestPut(PutRequest { key, value, lease, ..PutRequest::default() }))
}

pub(super) fn delete(key: Bytes) -> RequestOp {
    op(Request::RequestDeleteRange(DeleteRangeRequest { key, ..DeleteRangeRequest::default() }))
}

/// Deletes everything that begins with `start`.
pub(super) fn delete_prefix(start: Bytes) -> RequestOp {
    let range_end = behind(&start);
    op(Request::RequestDeleteRange(DeleteRangeRequest { key: start, range_end, ..DeleteRangeRequest::default() }))
}

/// One key.
pub(super) fn range(key: Bytes) -> RangeRequest {
    RangeRequest { key, ..RangeRequest::default() }
}

/// Everything that begins with `start`.
pub(super) fn prefix(start: Bytes) -> RangeRequest {
    let range_end = behind(&start);
    RangeRequest { key: start, range_end, ..RangeRequest::default() }
}

/// The first key behind all that begin with `start`. None of the store's ends with the highest byte.
pub(super) fn behind(start: &Bytes) -> Bytes {
    let mut end = start.to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end.into()
}

/// The key was written last at that revision of etcd; 0: it is not there.
pub(super) fn is_of(key: Bytes, mod_revision: i64) -> Compare {
    compare(key, CompareTarget::Mod, TargetUnion::ModRevision(mod_revision))
}

/// The key lives with this lease.
pub(super) fn lives_with(key: Bytes, lease: i64) -> Compare {
    compare(key, CompareTarget::Lease, TargetUnion::Lease(lease))
}

fn compare(key: Bytes, target: CompareTarget, value: TargetUnion) -> Compare {
    Compare { result: CompareResult::Equal.into(), target: target.into(), key, target_union: Some(value) }
}

/// The ranges among the answers of a transaction, in the order asked for.
pub(super) fn ranges(answer: TxnResponse) -> Vec<RangeResponse> {
    let range = |response: ResponseOp| match response.response {
        Some(Response::ResponseRange(range)) => Some(range),
        Some(Response::ResponsePut(_) | Response::ResponseDeleteRange(_)) | None => None,
    };
    answer.responses.into_iter().filter_map(range).collect()
}
