// API keys: a request passes with a key whose SHA-256 the configuration has, under its client's name. Keys themselves
// stand nowhere. Needs the capability `crypto`.
#include "weft.h"

typedef struct client {
  struct client *next;
  weft_text name;
  char hash[32];
} client;

typedef struct settings {
  struct settings *next;
  uint32_t id;
  weft_text header;
  client *clients;
} settings;

static settings *configurations;

static void release(settings *it) {
  while (it->clients) {
    client *next = it->clients->next;
    free((void *)it->clients->name.at);
    free(it->clients);
    it->clients = next;
  }
  free((void *)it->header.at);
  free(it);
}

static bool read_hash(const weft_json *value, char *hash) {
  if (value->kind != JSON_TEXT || value->text.size != 64) return false;
  for (size_t i = 0; i < 64; i++) {
    char it = value->text.at[i];
    int digit = it >= '0' && it <= '9' ? it - '0' : (it | 32) >= 'a' && (it | 32) <= 'f' ? (it | 32) - 'a' + 10 : -1;
    if (digit < 0) return false;
    hash[i / 2] = (char)(i % 2 ? hash[i / 2] | digit : digit << 4);
  }
  return true;
}

static const client *with_hash(const settings *it, weft_text hash) {
  const client *found = it->clients;
  while (found && !same((weft_text){found->hash, sizeof(found->hash)}, hash)) found = found->next;
  return found;
}

// False with the reason where the configuration is another.
static bool read_config(weft_text config, settings *made, weft_text *why) {
  weft_json *value = weft_parse(config);
  weft_json *clients = value ? weft_member(value, "clients") : NULL;
  weft_json *header = value ? weft_member(value, "header") : NULL;
  if (!clients || clients->kind != JSON_OBJECT) {
    *why = text("clients: an object is wanted");
    return false;
  }
  if (header && header->kind != JSON_TEXT) {
    *why = text("header: a text is wanted");
    return false;
  }
  made->header = kept(header ? header->text : text("x-api-key"));
  for (weft_json *of = clients->first; of; of = of->next) {
    client *one = malloc(sizeof(client));
    *one = (client){.next = made->clients, .name = kept(of->key)};
    bool is_hash = read_hash(of, one->hash);
    const client *other = with_hash(made, (weft_text){one->hash, sizeof(one->hash)});
    made->clients = one;
    if (!is_hash || other) {
      weft_text fault = other && is_hash ? joined(2, text(": it has the key of "), other->name)
                                         : text(": 64 hex digits are wanted");
      *why = joined(3, text("clients."), of->key, fault);
      return false;
    }
  }
  return true;
}

weft_interest filter_configure(uint32_t id, weft_text config) {
  settings *made = malloc(sizeof(settings));
  *made = (settings){.next = configurations, .id = id};
  weft_text why;
  if (!read_config(config, made, &why)) {
    release(made);
    return refused(why);
  }
  configurations = made;
  weft_value_name *key = weft_alloc(sizeof(weft_value_name));
  key[0] = (weft_value_name){joined(2, text("request.header."), made->header), false};
  weft_hook *hooks = weft_alloc(sizeof(weft_hook));
  hooks[0] = (weft_hook){text("request-head"), key, 1, NULL, 0};
  return interested(hooks, 1);
}

void filter_forget(uint32_t id) {
  for (settings **it = &configurations; *it; it = &(*it)->next) {
    settings *found = *it;
    if (found->id != id) continue;
    *it = found->next;
    release(found);
    return;
  }
}

weft_outcome filter_request_head(const weft_call *call) {
  const settings *it = configurations;
  while (it && it->id != call->config) it = it->next;
  if (!it) __builtin_trap();
  if (weft_value_count(call, 0) != 1) return respond(401, "key_missing", "one API key is wanted\n");
  weft_text hash;
  if (!crypto_sha256(weft_value(call, 0), &hash)) {
    weft_log(LOG_WARN, text("no key can be checked"));
    return respond(503, "key_unverifiable", "no key can be checked\n");
  }
  const client *found = with_hash(it, hash);
  if (!found) return respond(401, "key_unknown", "the API key is none\n");
  weft_edit *edits = weft_alloc(3 * sizeof(weft_edit));
  edits[0] = remove_header(it->header);
  edits[1] = set_header(text("x-api-client"), found->name);
  edits[2] = set_attribute(text("filter.apikeys.client"), found->name);
  return pass(edits, 3);
}
