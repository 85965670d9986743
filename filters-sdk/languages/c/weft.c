// The border of the sandbox: memory, the exports of the contract, its imports, and JSON. A further hook of the contract
// is one more export here, as on-request-head, and a line in wit/world.wit.
#include "weft.h"

#include <stdarg.h>

#define EXPORT(name) __attribute__((export_name(name)))
#define IMPORT(from, name) __attribute__((import_module(from), import_name(name)))

// The layout of the contract's types.
_Static_assert(sizeof(weft_value_name) == 12 && sizeof(weft_hook) == 24 && sizeof(weft_field) == 16, "of configure");
_Static_assert(sizeof(weft_interest) == 12 && offsetof(weft_interest, reason) == 4, "of its result");
_Static_assert(sizeof(weft_edit) == 20 && sizeof(weft_reply) == 44 && sizeof(weft_verdict) == 48, "of verdicts");
_Static_assert(sizeof(weft_outcome) == 68 && offsetof(weft_outcome, cookie) == 56, "of outcomes");

// ---- Memory: blocks of powers of two, each with its class before it. What is freed is used again for its own class.

enum { SMALLEST = 4, CLASSES = 28, HEADER = 8 };

typedef struct block {
  uint32_t class;
  struct block *next;
} block;

_Static_assert(sizeof(block) == HEADER, "a block's head");

extern unsigned char __heap_base;
static uintptr_t fresh;
static block *unused[CLASSES];

static block *grown(size_t size) {
  if (fresh == 0) fresh = ((uintptr_t)&__heap_base + 7) & ~(uintptr_t)7;
  size_t end = __builtin_wasm_memory_size(0) << 16;
  if (size > end - fresh) {
    size_t pages = (size - (end - fresh) + 65535) >> 16;
    if (__builtin_wasm_memory_grow(0, pages) == (size_t)-1) __builtin_trap();
  }
  block *made = (block *)fresh;
  fresh += size;
  return made;
}

void *malloc(size_t size) {
  uint32_t class = SMALLEST;
  while (((size_t)1 << class) - HEADER < size) {
    if (++class == CLASSES) __builtin_trap();
  }
  block *found = unused[class];
  if (found) unused[class] = found->next;
  else found = grown((size_t)1 << class);
  found->class = class;
  return (char *)found + HEADER;
}

void free(void *memory) {
  if (!memory) return;
  block *freed = (block *)((char *)memory - HEADER);
  freed->next = unused[freed->class];
  unused[freed->class] = freed;
}

// Everything of the call at hand.
typedef struct lent {
  struct lent *next;
  uint32_t padding;
} lent;

static lent *of_call;

void *weft_alloc(size_t size) {
  if (size > ((size_t)1 << (CLASSES - 1))) __builtin_trap();
  lent *made = malloc(sizeof(lent) + size);
  made->next = of_call;
  of_call = made;
  return memset(made + 1, 0, size);
}

static void end_call(void) {
  while (of_call) {
    lent *next = of_call->next;
    free(of_call);
    of_call = next;
  }
}

EXPORT("cabi_realloc") void *weft_realloc(void *old, size_t old_size, size_t align, size_t size) {
  (void)align;  // No type of the contract wants more than 8.
  void *made = weft_alloc(size);
  if (old) memcpy(made, old, old_size < size ? old_size : size);
  return made;
}

// With bulk memory these are single instructions.
void *memcpy(void *to, const void *from, size_t size) { return __builtin_memcpy(to, from, size); }
void *memmove(void *to, const void *from, size_t size) { return __builtin_memmove(to, from, size); }
void *memset(void *to, int byte, size_t size) { return __builtin_memset(to, byte, size); }

int memcmp(const void *left, const void *right, size_t size) {
  const unsigned char *a = left, *b = right;
  for (size_t i = 0; i < size; i++) {
    if (a[i] != b[i]) return a[i] - b[i];
  }
  return 0;
}

size_t strlen(const char *it) {
  size_t size = 0;
  while (it[size]) size++;
  return size;
}

// ---- Text.

weft_text text(const char *literal) { return (weft_text){literal, strlen(literal)}; }

bool same(weft_text left, weft_text right) {
  return left.size == right.size && memcmp(left.at, right.at, left.size) == 0;
}

weft_text joined(int count, ...) {
  va_list parts;
  size_t size = 0;
  va_start(parts, count);
  for (int i = 0; i < count; i++) size += va_arg(parts, weft_text).size;
  va_end(parts);
  char *at = weft_alloc(size), *end = at;
  va_start(parts, count);
  for (int i = 0; i < count; i++) {
    weft_text part = va_arg(parts, weft_text);
    memcpy(end, part.at, part.size);
    end += part.size;
  }
  va_end(parts);
  return (weft_text){at, size};
}

weft_text kept(weft_text it) {
  char *at = malloc(it.size);
  memcpy(at, it.at, it.size);
  return (weft_text){at, it.size};
}

weft_text decimal(uint64_t number) {
  enum { DIGITS = 20 };
  char *at = weft_alloc(DIGITS), *digit = at + DIGITS;
  do *--digit = (char)('0' + number % 10);
  while ((number /= 10) > 0);
  return (weft_text){digit, (size_t)(at + DIGITS - digit)};
}

// ---- JSON.

enum { DEEPEST = 32 };

typedef struct {
  const char *at, *end;
} source;

static void skip_space(source *in) {
  while (in->at < in->end && (*in->at == ' ' || *in->at == '\t' || *in->at == '\n' || *in->at == '\r')) in->at++;
}

static bool took(source *in, const char *word) {
  size_t size = strlen(word);
  if ((size_t)(in->end - in->at) < size || memcmp(in->at, word, size) != 0) return false;
  in->at += size;
  return true;
}

// Four hex digits, or -1.
static int32_t hex4(source *in) {
  if (in->end - in->at < 4) return -1;
  int32_t number = 0;
  for (int i = 0; i < 4; i++) {
    char it = *in->at++;
    int digit = it >= '0' && it <= '9' ? it - '0' : (it | 32) >= 'a' && (it | 32) <= 'f' ? (it | 32) - 'a' + 10 : -1;
    if (digit < 0) return -1;
    number = number << 4 | digit;
  }
  return number;
}

static size_t utf8(char *to, uint32_t it) {
  if (it < 0x80) {
    to[0] = (char)it;
    return 1;
  }
  size_t size = it < 0x800 ? 2 : it < 0x10000 ? 3 : 4;
  for (size_t i = size; i-- > 1; it >>= 6) to[i] = (char)(0x80 | (it & 0x3f));
  to[0] = (char)((0xf00 >> size) | it);
  return size;
}

// After its first quote. No escape is shorter than what it stands for.
static bool quoted(source *in, weft_text *found) {
  const char *close = in->at;
  while (close < in->end && *close != '"') close += *close == '\\' ? 2 : 1;
  if (close >= in->end) return false;
  char *at = weft_alloc((size_t)(close - in->at)), *to = at;
  for (;;) {
    if (in->at == in->end || (unsigned char)*in->at < 0x20) return false;
    char it = *in->at++;
    if (it == '"') break;
    if (it != '\\') {
      *to++ = it;
      continue;
    }
    if (in->at == in->end) return false;
    const char *plain = "\"\\/bfnrt", *means = "\"\\/\b\f\n\r\t";
    char escape = *in->at++;
    size_t index = 0;
    while (plain[index] && plain[index] != escape) index++;
    if (plain[index]) {
      *to++ = means[index];
      continue;
    }
    int32_t high = escape == 'u' ? hex4(in) : -1;
    if (high >= 0xd800 && high < 0xdc00) {
      int32_t low = took(in, "\\u") ? hex4(in) : -1;
      high = low >= 0xdc00 && low < 0xe000 ? 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00) : -1;
    } else if (high >= 0xdc00 && high < 0xe000) {
      high = -1;
    }
    if (high < 0) return false;
    to += utf8(to, (uint32_t)high);
  }
  *found = (weft_text){at, (size_t)(to - at)};
  return true;
}

static bool digits(source *in) {
  const char *began = in->at;
  while (in->at < in->end && *in->at >= '0' && *in->at <= '9') in->at++;
  return in->at > began;
}

static bool number(source *in) {
  took(in, "-");
  if (!took(in, "0") && !digits(in)) return false;
  if (took(in, ".") && !digits(in)) return false;
  if (took(in, "e") || took(in, "E")) {
    if (!took(in, "+")) took(in, "-");
    return digits(in);
  }
  return true;
}

static weft_json *parsed(source *in, int depth);

// After its first bracket.
static bool members(source *in, int depth, weft_json *of) {
  bool is_object = of->kind == JSON_OBJECT;
  const char *close = is_object ? "}" : "]";
  weft_json **end = &of->first;
  skip_space(in);
  if (took(in, close)) return true;
  for (;;) {
    weft_text key = {0};
    skip_space(in);
    if (is_object) {
      if (!took(in, "\"") || !quoted(in, &key)) return false;
      skip_space(in);
      if (!took(in, ":")) return false;
    }
    weft_json *member = parsed(in, depth + 1);
    if (!member) return false;
    member->key = key;
    *end = member;
    end = &member->next;
    if (took(in, close)) return true;
    if (!took(in, ",")) return false;
  }
}

static weft_json *parsed(source *in, int depth) {
  if (depth > DEEPEST) return NULL;
  weft_json *made = weft_alloc(sizeof(weft_json));
  skip_space(in);
  const char *began = in->at;
  bool good;
  if (took(in, "{")) {
    made->kind = JSON_OBJECT;
    good = members(in, depth, made);
  } else if (took(in, "[")) {
    made->kind = JSON_LIST;
    good = members(in, depth, made);
  } else if (took(in, "\"")) {
    made->kind = JSON_TEXT;
    good = quoted(in, &made->text);
  } else if (took(in, "null")) {
    made->kind = JSON_NULL;
    good = true;
  } else if (took(in, "true") || took(in, "false")) {
    made->kind = JSON_BOOL;
    made->text = (weft_text){began, (size_t)(in->at - began)};
    good = true;
  } else {
    made->kind = JSON_NUMBER;
    good = number(in);
    made->text = (weft_text){began, (size_t)(in->at - began)};
  }
  skip_space(in);
  return good ? made : NULL;
}

weft_json *weft_parse(weft_text it) {
  if (it.size == 0) return weft_alloc(sizeof(weft_json));
  source in = {it.at, it.at + it.size};
  weft_json *value = parsed(&in, 0);
  return in.at == in.end ? value : NULL;
}

weft_json *weft_member(const weft_json *object, const char *key) {
  for (weft_json *member = object->first; member; member = member->next) {
    if (same(member->key, text(key))) return member;
  }
  return NULL;
}

// ---- What hooks say.

weft_interest interested(const weft_hook *hooks, size_t count) {
  return (weft_interest){.is_refused = false, .hooks = hooks, .hook_count = count};
}

weft_interest refused(weft_text reason) { return (weft_interest){.is_refused = true, .reason = reason}; }

weft_edit set_header(weft_text name, weft_text value) { return (weft_edit){.tag = EDIT_SET, .field = {name, value}}; }

weft_edit remove_header(weft_text name) { return (weft_edit){.tag = EDIT_REMOVE, .text = name}; }

weft_edit set_attribute(weft_text name, weft_text value) {
  return (weft_edit){.tag = EDIT_ATTRIBUTE, .field = {name, value}};
}

weft_outcome pass(const weft_edit *edits, size_t count) {
  return (weft_outcome){.verdict = {.tag = VERDICT_CONTINUE}, .edits = edits, .edit_count = count};
}

weft_outcome respond(uint16_t status, const char *reason, const char *body) {
  weft_field *headers = weft_alloc(sizeof(weft_field));
  headers[0] = (weft_field){text("content-type"), text("text/plain")};
  weft_reply reply = {.status = status, .headers = headers, .header_count = 1, .body = text(body), .reason = text(reason)};
  return (weft_outcome){.verdict = {.tag = VERDICT_RESPOND, .reply = reply}};
}

// Each entry: position (u16), length of the name (u16), length of the value (u32), both.
static weft_text nth_value(const weft_call *call, uint16_t position, size_t *count) {
  weft_text found = {0};
  *count = 0;
  const char *at = call->values.at, *end = at + call->values.size;
  while (end - at >= 8) {
    uint16_t of, name;
    uint32_t value;
    memcpy(&of, at, 2);
    memcpy(&name, at + 2, 2);
    memcpy(&value, at + 4, 4);
    at += 8 + name;
    if (of == position && (*count)++ == 0) found = (weft_text){at, value};
    at += value;
  }
  return found;
}

weft_text weft_value(const weft_call *call, uint16_t position) {
  size_t count;
  return nth_value(call, position, &count);
}

size_t weft_value_count(const weft_call *call, uint16_t position) {
  size_t count;
  nth_value(call, position, &count);
  return count;
}

// ---- Exports.

static weft_interest interest;
static weft_outcome outcome;

EXPORT("weft:filter/configuration@0.2.0#configure")
weft_interest *weft_configure(uint32_t id, const char *config, size_t size) {
  interest = filter_configure(id, (weft_text){config, size});
  return &interest;
}

EXPORT("cabi_post_weft:filter/configuration@0.2.0#configure") void weft_configured(weft_interest *it) {
  (void)it;
  end_call();
}

EXPORT("weft:filter/configuration@0.2.0#forget") void weft_forget(uint32_t id) { filter_forget(id); }

EXPORT("weft:filter/request-head@0.2.0#on-request-head")
weft_outcome *weft_request_head(uint32_t config, uint64_t stream, const char *cookie, size_t cookie_size,
                                const char *values, size_t values_size) {
  weft_call call = {config, stream, {cookie, cookie_size}, {values, values_size}};
  outcome = filter_request_head(&call);
  return &outcome;
}

EXPORT("cabi_post_weft:filter/request-head@0.2.0#on-request-head") void weft_request_headed(weft_outcome *it) {
  (void)it;
  end_call();
}

// ---- Imports.

typedef struct {
  bool is_error;
  union {
    uint32_t id;
    weft_text text;
  };
} defined;

// A list of bytes, or an error with or without a text.
typedef struct {
  bool is_error;
  union {
    weft_text bytes;
    struct {
      uint8_t tag;
      weft_text text;
    } error;
  };
} given;

_Static_assert(sizeof(defined) == 12 && sizeof(given) == 16, "of results");

IMPORT("weft:filter/log@0.2.0", "write") void log_write(int32_t level, const char *message, size_t size);
IMPORT("weft:filter/metrics@0.2.0", "define")
void metrics_define(int32_t kind, const char *name, size_t size, const weft_text *labels, size_t count, defined *it);
IMPORT("weft:filter/metrics@0.2.0", "add")
void metrics_add(uint32_t metric, const weft_text *labels, size_t count, uint64_t delta);
IMPORT("weft:filter/crypto@0.2.0", "sha256") void sha256(const char *data, size_t size, given *it);

void weft_log(weft_level level, weft_text message) { log_write(level, message.at, message.size); }

bool metric_define(weft_metric_kind kind, const char *name, const weft_text *labels, size_t count, uint32_t *metric,
                   weft_text *why) {
  defined made;
  metrics_define(kind, name, strlen(name), labels, count, &made);
  if (made.is_error) *why = made.text;
  else *metric = made.id;
  return !made.is_error;
}

void metric_add(uint32_t metric, const weft_text *labels, size_t count, uint64_t delta) {
  metrics_add(metric, labels, count, delta);
}

bool crypto_sha256(weft_text data, weft_text *hash) {
  given made;
  sha256(data.at, data.size, &made);
  if (!made.is_error) *hash = made.bytes;
  return !made.is_error;
}
