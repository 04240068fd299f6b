// What real input needs from inside the page: is the target reachable, where, and what did the input change.
async function prepare({ step, pages, token }) {
  const here = pageNumber(pages);
  const before = look(pages, here);
  if (step.page !== here) return { ...before, result: { status: "failed", note: "wrong_page", here } };
  const found = await locate(step.key);
  if (!found.element) return { ...before, result: { status: "failed", ...found } };
  watch.target = found.element;
  watch.token = token;
  return { ...before, point: found.point, ...PREPARATIONS[step.verb]?.(found.element, step.value) };
}

const target = () => watch.target;

const PREPARATIONS = {
  fill: (element, value) => {
    const { isRefused } = typed(element, value);
    return isRefused ? { result: difference(value, element.value) } : {};
  },
  select: (element, value) => {
    const option = optionOf(element, value);
    if (!option) return { result: noOption(element) };
    const others = element.multiple ? Array.from(element.selectedOptions, (other) => other.index) : [];
    return { indexes: [...others, option.index] };
  },
  check: (element) => ({ result: element.checked ? OK : undefined }),
  uncheck: (element) => ({ result: element.checked ? undefined : OK }),
  choose: (element) => ({ result: element.checked ? OK : undefined }),
};

const READ_BACKS = {
  fill: readBack,
  clear: (element) => readBack(element, ""),
  select: (element, value) => (valuesOf(element).includes(value) ? OK : difference(value, valuesOf(element).join(", "))),
  check: (element) => ticked(element, true),
  choose: (element) => ticked(element, true),
  uncheck: (element) => ticked(element, false),
};

// In a new document the token is gone: the input has left the page that it was meant for.
async function readBackTarget({ step, token, pages }) {
  if (watch.token !== token) return { isLeaving: true, result: OK };
  if (READ_BACKS[step.verb]) return { ...look(pages), result: READ_BACKS[step.verb](watch.target, step.value) };
  if (!isLeaving() && !watch.invalid.length) await twoFrames();
  const messages = takeInvalid();
  return { ...look(pages), result: messages.length ? { status: "failed", note: "validation", messages } : OK };
}
