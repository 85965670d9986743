// What a filter in C has of the contract `weft:filter@0.2`, in the layout in which it crosses the sandbox's border.
// weft.c has the bodies. There is no library of C: what is declared here is all that there is.
#ifndef WEFT_H
#define WEFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// ---- Memory. What weft_alloc gives ends with the call at hand, as all that a hook is handed; malloc's stays.

void *malloc(size_t size);
void free(void *memory);
void *memcpy(void *to, const void *from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *left, const void *right, size_t size);
size_t strlen(const char *text);

// Zeroed memory that ends with the call.
void *weft_alloc(size_t size);

// ---- Text and bytes.

typedef struct {
  const char *at;
  size_t size;
} weft_text;

// The text of a literal, or of another C string.
weft_text text(const char *literal);
bool same(weft_text left, weft_text right);
// Texts one after another, for the call: joined(3, a, b, c).
weft_text joined(int count, ...);
// A copy that stays, as malloc's memory.
weft_text kept(weft_text it);
// Decimal digits, for the call.
weft_text decimal(uint64_t number);

// ---- Configuration.

typedef enum { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_TEXT, JSON_LIST, JSON_OBJECT } weft_json_kind;

// A value of JSON, for the call.
typedef struct weft_json {
  weft_json_kind kind;
  // A text without its escapes, a number as it is written, `true` and `false`.
  weft_text text;
  // Within an object.
  weft_text key;
  struct weft_json *first, *next;
} weft_json;

// Parses a whole text; empty is null. NULL: it is no JSON, is nested more than 32 deep or has a lone surrogate.
weft_json *weft_parse(weft_text source);
// A field of an object, or NULL.
weft_json *weft_member(const weft_json *object, const char *key);

typedef struct {
  weft_text name;
  bool optional;
} weft_value_name;

typedef struct {
  weft_text name;
  weft_text value;
} weft_field;

typedef struct {
  weft_text name;
  const weft_value_name *values;
  size_t value_count;
  const weft_field *options;
  size_t option_count;
} weft_hook;

// What configure gives: hooks, or why the configuration is refused.
typedef struct {
  bool is_refused;
  union {
    struct {
      const weft_hook *hooks;
      size_t hook_count;
    };
    weft_text reason;
  };
} weft_interest;

weft_interest interested(const weft_hook *hooks, size_t count);
weft_interest refused(weft_text reason);

// ---- Hooks.

typedef struct {
  uint32_t config;
  uint64_t stream;
  weft_text cookie;
  weft_text values;
} weft_call;

// The first value of a position in what the hook asked for; `at` is NULL where there is none.
weft_text weft_value(const weft_call *call, uint16_t position);
size_t weft_value_count(const weft_call *call, uint16_t position);

typedef enum {
  EDIT_SET, EDIT_ADD, EDIT_REMOVE, EDIT_PATH, EDIT_AUTHORITY, EDIT_STATUS, EDIT_BODY, EDIT_ATTRIBUTE, EDIT_OTHER
} weft_edit_tag;

typedef struct {
  uint8_t tag;
  union {
    weft_field field;
    weft_text text;
    uint16_t status;
  };
} weft_edit;

weft_edit set_header(weft_text name, weft_text value);
weft_edit remove_header(weft_text name);
weft_edit set_attribute(weft_text name, weft_text value);

typedef enum {
  VERDICT_CONTINUE, VERDICT_CONTINUE_AFTER, VERDICT_WAIT, VERDICT_RESPOND, VERDICT_RESET, VERDICT_CLOSE, VERDICT_OTHER
} weft_verdict_tag;

typedef struct {
  bool is_some;
  weft_text value;
} weft_option;

typedef struct {
  uint16_t status;
  const weft_field *headers;
  size_t header_count;
  weft_text body;
  weft_option rule;
  weft_text reason;
  uint32_t after_ms;
} weft_reply;

typedef struct {
  uint8_t tag;
  union {
    uint32_t ms;
    weft_reply reply;
    weft_text reason;
    weft_field other;
  };
} weft_verdict;

typedef struct {
  weft_verdict verdict;
  const weft_edit *edits;
  size_t edit_count;
  weft_option cookie;
} weft_outcome;

weft_outcome pass(const weft_edit *edits, size_t count);
// An answer of plain text.
weft_outcome respond(uint16_t status, const char *reason, const char *body);

// ---- What the host does for a filter.

typedef enum { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR } weft_level;
typedef enum { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM } weft_metric_kind;

void weft_log(weft_level level, weft_text message);
// False: the host refuses it, and `why` says why.
bool metric_define(weft_metric_kind kind, const char *name, const weft_text *labels, size_t count, uint32_t *metric,
                   weft_text *why);
void metric_add(uint32_t metric, const weft_text *labels, size_t count, uint64_t delta);
// Capability `crypto`: 32 bytes for the call; false where it is not granted.
bool crypto_sha256(weft_text data, weft_text *hash);

// ---- What the filter has: filter.c.

weft_interest filter_configure(uint32_t id, weft_text config);
void filter_forget(uint32_t id);
weft_outcome filter_request_head(const weft_call *call);

#endif
