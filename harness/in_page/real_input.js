// What real input needs from inside the page: is the target reachable, where, and what did the input change.
async function prepare({ step, pages, token }) {
  const here = await pageInTime(pages, step.page);
  const done = (result) => ({ ...look(pages, here), result });
  if (step.page !== here) return done({ status: "failed", note: "wrong_page", here });
  keep(pages, here);
  watch.fields = fieldsHere();
  watch.dialogs = [];
  if (HANDS_OVER.has(step.verb)) leaveField(resolve(step.key));
  const found = await locate(step);
  if (!found.element) return done({ status: "failed", ...found, ...beside(watch.fields) });
  watch.target = found.element;
  watch.token = token;
  watch.appearance = READ_BACKS[step.verb] ? "" : appearance();
  const prepared = await PREPARATIONS[step.verb]?.(found.element, step.value, step.file);
  const result = prepared?.result && { ...prepared.result, ...beside(watch.fields) };
  const numBoxes = prepared?.numBoxes ?? 0;
  return { ...done(result), point: found.point, hearsKeys: WRITES.has(step.verb) && hearsKeys(found.element), numBoxes };
}

// A chooser of options, dates or files is a window of its own that no page reaches, and a slider has no text, so these
// are set from inside the page, as Playwright does. A text is selected here and typed over by the real keyboard.
const isSetInside = (element) => kindOf(element) === "date" || ["range", "color"].includes(element.type);
const PREPARATIONS = {
  fill: (element, value) => (isSetInside(element) ? { result: fill(element, value) } : selectText(element, value)),
  clear: (element) => (isSetInside(element) ? { result: fill(element, "") } : selectText(element, "")),
  select: async (element, value) => ({ result: await selectInTime(element, value) }),
  upload: (element, value, file) => ({ result: upload(element, value, file) }),
  check: (element) => ({ result: isTicked(element) ? OK : undefined }),
  uncheck: (element) => ({ result: isTicked(element) ? undefined : OK }),
  choose: (element) => ({ result: isTicked(element) ? OK : undefined }),
  press: (element) => element.focus({ preventScroll: true }),
};

// A field that is left says so before anything is pressed, which gives the page time for what it does then.
function leaveField(target) {
  if (document.activeElement !== target && document.activeElement?.matches("input, textarea")) document.activeElement.blur();
}

function selectText(element, value) {
  if (boxesOf(element)) return { numBoxes: boxesOf(element).length };
  if (typed(element, value).isRefused) return { result: difference(value, element.value) };
  element.focus({ preventScroll: true });
  if (isNative(element)) element.select();
  else element.ownerDocument.getSelection().selectAllChildren(element);
  return {};
}

const READ_BACKS = {
  fill: (element, value) => {
    if (hearsKeys(element) && !boxesOf(element)) raiseMissingKey(element, value);
    return readBack(element, value);
  },
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
