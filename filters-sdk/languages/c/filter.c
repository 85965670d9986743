// A filter to start from: refuses some callers, counts the others, and greets the app with each.
#include "weft.h"

// What each configuration has made, by its id.
typedef struct settings {
  struct settings *next;
  uint32_t id;
  uint32_t seen;
  size_t refused_count;
  weft_text *refused;
} settings;

static settings *configurations;

static settings *settings_of(uint32_t id) {
  settings *it = configurations;
  while (it && it->id != id) it = it->next;
  if (!it) __builtin_trap();
  return it;
}

static void release(settings *it) {
  for (size_t i = 0; i < it->refused_count; i++) free((void *)it->refused[i].at);
  free(it->refused);
  free(it);
}

// The names in `refused`; false with the reason where the configuration is another.
static bool read_refused(weft_text config, settings *made, weft_text *why) {
  weft_json *value = weft_parse(config);
  if (!value || (value->kind != JSON_OBJECT && value->kind != JSON_NULL)) {
    *why = text("an object is wanted");
    return false;
  }
  for (weft_json *field = value->first; field; field = field->next) {
    if (!same(field->key, text("refused"))) {
      *why = joined(2, field->key, text(": there is no such field"));
      return false;
    }
    if (field->kind != JSON_LIST) {
      *why = text("refused: a list is wanted");
      return false;
    }
    size_t index = 0;
    for (weft_json *name = field->first; name; name = name->next, index++) {
      if (name->kind != JSON_TEXT) {
        *why = joined(3, text("refused["), decimal(index), text("]: a text is wanted"));
        return false;
      }
    }
    if (made->refused) {
      *why = text("refused: it is there twice");
      return false;
    }
    made->refused = malloc(index * sizeof(weft_text));
    for (weft_json *name = field->first; name; name = name->next) made->refused[made->refused_count++] = kept(name->text);
  }
  return true;
}

weft_interest filter_configure(uint32_t id, weft_text config) {
  static const weft_value_name account[] = {{{"source.service-account", 22}, false}};
  static const weft_hook hooks[] = {{{"request-head", 12}, account, 1, NULL, 0}};
  const weft_text labels[] = {text("account")};
  settings *made = malloc(sizeof(settings));
  *made = (settings){.next = configurations, .id = id};
  weft_text why;
  if (!read_refused(config, made, &why) || !metric_define(METRIC_COUNTER, "seen_total", labels, 1, &made->seen, &why)) {
    release(made);
    return refused(why);
  }
  configurations = made;
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
  const settings *it = settings_of(call->config);
  weft_text account = weft_value(call, 0);
  if (!account.at) account = text("nobody");
  for (size_t i = 0; i < it->refused_count; i++) {
    if (!same(it->refused[i], account)) continue;
    weft_outcome refusal = respond(403, "caller_refused", "go away\n");
    refusal.verdict.reply.rule = (weft_option){true, account};
    return refusal;
  }
  metric_add(it->seen, &account, 1, 1);
  weft_edit *edits = weft_alloc(sizeof(weft_edit));
  edits[0] = set_header(text("x-greeting"), joined(2, text("hello "), account));
  return pass(edits, 1);
}
