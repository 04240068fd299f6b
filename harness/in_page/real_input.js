// What real input needs from inside the page: is the target reachable, where, and what did the input change.
async function prepare({ step, pages, token }) {
  const here = pageNumber(pages);
  const done = (result) => ({ ...look(pages, here), result });
  if (step.page !== here) return done({ status: "failed", note: "wrong_page", here });
  keep(pages, here);
  watch.fields = fieldsHere();
  watch.dialogs = [];
  const found = await locate(step.key);
  if (!found.element) return done({ status: "failed", ...found, ...beside(watch.fields) });
  watch.target = found.element;
  watch.token = token;
  watch.appearance = READ_BACKS[step.verb] ? "" : appearance();
  const prepared = PREPARATIONS[step.verb]?.(found.element, step.value, step.file);
  return { ...done(prepared?.result && { ...prepared.result, ...beside(watch.fields) }), point: found.point };
}

// A chooser of options, dates or files is a window of its own that no page reaches, and a slider has no text, so these
// are set from inside the page, as Playwright does. A text is selected here and typed over by the real keyboard.
const isSetInside = (element) => kindOf(element) === "date" || element.type === "range";
const PREPARATIONS = {
  fill: (element, value) => (isSetInside(element) ? { result: fill(element, value) } : selectText(element, value)),
  clear: (element) => (isSetInside(element) ? { result: fill(element, "") } : selectText(element, "")),
  select: (element, value) => ({ result: select(element, value) }),
  upload: (element, value, file) => ({ result: upload(element, value, file) }),
  check: (element) => ({ result: element.checked ? OK : undefined }),
  uncheck: (element) => ({ result: element.checked ? undefined : OK }),
  choose: (element) => ({ result: element.checked ? OK : undefined }),
  press: (element) => element.focus({ preventScroll: true }),
};

function selectText(element, value) {
  if (typed(element, value).isRefused) return { result: difference(value, element.value) };
  element.focus({ preventScroll: true });
  element.select();
  return {};
}

const READ_BACKS = {
  fill: readBack,
  clear: (element) => readBack(element, ""),
  check: (element) => ticked(element, true),
  choose: (element) => ticked(element, true),
  uncheck: (element) => ticked(element, false),
};

// In a new document the token is gone: the input has left the page that it was meant for.
async function readBackTarget({ step, token, pages }) {
  if (watch.token !== token) return { isLeaving: true, result: OK };
  const result = READ_BACKS[step.verb]
    ? READ_BACKS[step.verb](watch.target, step.value)
    : await afterCommand(watch.appearance);
  return { ...look(pages), result: isLeaving() ? result : { ...result, ...beside(watch.fields) } };
}
