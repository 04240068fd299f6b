// Acts on elements with native setters and a browser's order of events, and watches whether the document is left.
const isStrict = (element) => ["number", "date"].includes(kindOf(element)) || element.type === "color";

const watch = { submitEvent: null, isNavigating: false, invalid: [], dialogs: [], fields: null, target: null, token: null };
for (const type of ["alert", "confirm", "prompt"]) {
  const show = window[type];
  window[type] = (...given) => { watch.dialogs.push(String(given[0] ?? "")); return show.apply(window, given); };
}
window.addEventListener("submit", (event) => {
  watch.submitEvent = event;
  useOneWindow(event.target, event.submitter);
}, true);
window.addEventListener("submit", (event) => useOneWindow(event.target, event.submitter));
const sendForm = HTMLFormElement.prototype.submit;
HTMLFormElement.prototype.submit = function () { useOneWindow(this); return sendForm.call(this); };
window.addEventListener("invalid", (event) => {
  watch.invalid.push({ name: accessibleName(event.target), message: event.target.validationMessage });
}, true);
window.navigation?.addEventListener("navigate", (event) => {
  const { url, sameDocument } = event.destination;
  if (!sameDocument && !event.hashChange && event.downloadRequest === null && isPage(url)) watch.isNavigating = true;
});

// An attribute of the button that sends a form, else the form's own; a field may hide the property of that name.
function sendingAttribute(form, submitter, name) {
  return submitter?.getAttribute(`form${name}`) ?? form.getAttribute(name);
}

function windowOf(form, submitter) {
  return sendingAttribute(form, submitter, "target") ?? document.querySelector("base[target]")?.target ?? "";
}

const isThisWindow = (name) => ["", "_self", "_top", "_parent"].includes(name.toLowerCase()) || name === window.name;
const frameNamed = (name) => Array.from(document.querySelectorAll("iframe, frame, object")).find((frame) => frame.name === name);

// A plan has one window, so what a form would open in another one comes in this one.
function useOneWindow(form, submitter) {
  const name = windowOf(form, submitter);
  if (isThisWindow(name) || frameNamed(name)) return;
  form.setAttribute("target", "_self");
  submitter?.removeAttribute("formtarget");
}

// An address that loads a document, unlike one that sends mail.
const isPage = (address) => URL.canParse(address, document.baseURI) && /^https?:$/.test(new URL(address, document.baseURI).protocol);

// Whether the answer to a form becomes the document: not in a frame, nor of a dialog or an address that loads nothing.
function bringsDocument({ target: form, submitter }) {
  if (!isThisWindow(windowOf(form, submitter))) return false;
  if (sendingAttribute(form, submitter, "method")?.toLowerCase() === "dialog") return false;
  const action = sendingAttribute(form, submitter, "action") || location.href;
  return isPage(action);
}

function isLeaving() {
  const event = watch.submitEvent;
  return watch.isNavigating || (event !== null && !event.defaultPrevented && bringsDocument(event));
}

// What looked like leaving has brought no document: a file, or an answer without content.
function stay() {
  watch.submitEvent = null;
  watch.isNavigating = false;
}

function takeInvalid() {
  return watch.invalid.splice(0);
}

// What else an action changed: fields that came or went (buttons do so with every widget), and what dialogs said.
const fieldsHere = () => new Set(visibleControls().filter((element) => !["button", "link"].includes(kindOf(element))));
const fieldLabel = (element) => groupName(element) || accessibleName(element) || fieldOf(element);

function beside(before) {
  const now = fieldsHere();
  const labels = (fields, others) => [...new Set([...fields].filter((element) => !others.has(element)).map(fieldLabel))];
  return { appeared: labels(now, before), gone: labels(before, now), dialogs: watch.dialogs.splice(0) };
}

// What a user sees: texts and values.
const appearance = () => document.body.innerText + JSON.stringify(snapshot());

function emit(element, type) {
  element.dispatchEvent(new Event(type, { bubbles: true, composed: true }));
}

// What the control would hold after this text was typed into it. A number or date field refuses what is none, and a
// field of one line refuses a line break.
function typed(element, wanted) {
  if (!isNative(element)) return { value: wanted, isRefused: false };
  const probe = element.cloneNode(false);
  setValue(probe, wanted);
  const value = element.maxLength >= 0 ? probe.value.slice(0, element.maxLength) : probe.value;
  const hasBreak = element.localName === "input" && /[\r\n]/.test(wanted);
  return { value, isRefused: hasBreak || (isStrict(element) && value !== wanted) };
}

const difference = (wanted, got) => ({ status: "failed", note: "value_differs", wanted, got });
const OK = { status: "ok", note: "ok" };

function readBack(element, wanted) {
  return textIn(element) === wanted ? OK : difference(wanted, textIn(element));
}

function fill(element, wanted) {
  if (boxesOf(element)) return fillRow(boxesOf(element), wanted);
  const { value, isRefused } = typed(element, wanted);
  if (isRefused) return difference(wanted, element.value);
  element.focus({ preventScroll: true });
  if (!isNative(element)) writeEditor(element, value);
  else if (isSetInside(element)) writeInto(element, value, "insertText", value);
  else write(element, value);
  emit(element, "change");
  return readBack(element, wanted);
}

function optionOf(element, text) {
  if (element.localName !== "select") return optionElements(listOf(element)).find((option) => squeeze(option.textContent) === text) ?? null;
  return realOptions(element).find((option) => optionText(option) === text && !option.disabled) ?? null;
}

const noOption = (element) => ({ status: "failed", note: "no_option", options: optionsOf(element) });

// Options that are under way are waited for.
async function selectInTime(element, text) {
  if (element.localName !== "select") return selectPlain(element, text);
  if (!optionOf(element, text) && isUnderWay()) await patiently(() => (optionOf(element, text) ? OK : noOption(element)));
  return select(element, text);
}

function select(element, text) {
  const option = optionOf(element, text);
  if (!option) return noOption(element);
  element.focus({ preventScroll: true });
  if (!option.selected) {
    option.selected = true;
    emit(element, "input");
    emit(element, "change");
  }
  return option.selected ? OK : difference(text, valuesOf(element).join(", "));
}

// A chooser of files is a window of its own, so what it would hand over is put into the field.
function upload(element, wanted, file) {
  const bytes = Uint8Array.from(atob(file.base64), (letter) => letter.charCodeAt(0));
  const given = new DataTransfer();
  given.items.add(new File([bytes], wanted, { type: file.type }));
  element.files = given.files;
  emit(element, "input");
  emit(element, "change");
  const got = valuesOf(element).join(", ");
  return got === wanted ? OK : difference(wanted, got);
}

function pointer(element, types) {
  for (const type of types) {
    const Kind = type.startsWith("pointer") ? PointerEvent : MouseEvent;
    element.dispatchEvent(new Kind(type, { bubbles: true, cancelable: true, composed: true, view: window }));
  }
}

// A mouse in the middle of a slider takes the handle there.
function slideToMiddle(element) {
  const middle = (Number(element.min || 0) + Number(element.max || 100)) / 2;
  if (element.value !== String(middle)) fill(element, String(middle));
  return OK;
}

function click(element) {
  if (element.type === "range") return slideToMiddle(element);
  pointer(element, ["pointerdown", "mousedown"]);
  element.focus({ preventScroll: true });
  pointer(element, ["pointerup", "mouseup"]);
  element.click();
  return OK;
}

function ticked(element, isWanted) {
  const says = (isSo) => (isSo ? "checked" : "unchecked");
  return isTicked(element) === isWanted ? OK : difference(says(isWanted), says(isTicked(element)));
}

function setTicked(element, isWanted) {
  if (isTicked(element) !== isWanted) click(element);
  return ticked(element, isWanted);
}

// A click that may submit: the document is either being left, or refused by validation, or gets two frames to react.
async function command(element) {
  const before = appearance();
  click(element);
  return afterCommand(before);
}

async function afterCommand(before) {
  if (!isLeaving() && !watch.invalid.length) await twoFrames();
  const messages = takeInvalid();
  if (messages.length) return { status: "failed", note: "validation", messages };
  return isLeaving() || watch.dialogs.length || appearance() !== before ? OK : { status: "ok", note: "no_change" };
}

const VERBS = {
  fill: (element, value) => fill(element, value),
  clear: (element) => fill(element, ""),
  select: (element, value) => selectInTime(element, value),
  upload: (element, value, file) => upload(element, value, file),
  check: (element) => setTicked(element, true),
  uncheck: (element) => setTicked(element, false),
  choose: (element) => setTicked(element, true),
  click: command,
  next: command,
  submit: command,
};

// Whole plan of one page in one call. Stops where the document is being left, and before a key press, which only a
// real keyboard can do. The caller resumes with the rest.
async function perform({ steps, pages }) {
  const here = await pageInTime(pages, steps[0].page);
  keep(pages, here);
  const results = [];
  for (const step of steps) {
    if (step.page !== here) {
      results.push({ status: "failed", note: "wrong_page", here });
      continue;
    }
    if (step.verb === "press") break;
    const fields = fieldsHere();
    watch.dialogs = [];
    const found = await locate(step);
    const result = found.element ? await VERBS[step.verb](found.element, step.value, step.file) : { status: "failed", ...found };
    results.push(isLeaving() ? result : { ...result, ...beside(fields) });
    if (isLeaving()) break;
  }
  return { results, ...look(pages, here) };
}

// What stands here: page, values, messages. Elements never leave the page.
function look(pages, here = pageNumber(pages)) {
  return { here, title: heading(), isLeaving: isLeaving(), values: snapshot(), alerts: alerts(), waited: takeWaited() };
}
