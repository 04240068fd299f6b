// What the scout needs on pages that are not ours: what a click may open there, and time for what comes by script.
const SETTLE_MS = 3000;
const NO_OPENER = /^(reset|clear|cancel|back|previous|close|delete|remove|log ?out|sign ?out)\b/i;
const sends = (element) => ["submit", "image"].includes(element.type) && Boolean(element.form);

// A button that sends nothing, a link within the page, or a field that is not typed into.
function mayOpen(element) {
  if (element.matches(":disabled") || NO_OPENER.test(accessibleName(element))) return false;
  const kind = kindOf(element);
  if (kind === "button") return !isOpener(element) && !sends(element);
  if (kind === "link") return /^(#|javascript:)/.test(element.getAttribute("href") ?? "");
  return Boolean(element.readOnly);
}

const openers = () => described(visibleControls().filter(mayOpen));

// Until nothing has been under way for four frames, for three seconds at most, or the document is left.
async function settled() {
  const start = performance.now();
  for (let numQuiet = 0; numQuiet < 2 && !isLeaving() && performance.now() - start < SETTLE_MS; ) {
    await twoFrames();
    numQuiet = isUnderWay() ? 0 : numQuiet + 1;
  }
}

// Gives the answers that can be given now, clicks, and says what stands there then.
async function open({ key, answers, files }) {
  await give(answers, files);
  const element = resolve(key);
  if (!element || element.matches(":disabled")) return { isLeaving: false, controls: described(visibleControls()) };
  click(element);
  await settled();
  return { isLeaving: isLeaving(), controls: described(visibleControls()) };
}

// By selector, the controls that it means, those that are hidden now included.
const selected = (selectors) => Object.fromEntries(selectors.map((selector) => [selector, selectedBy(selector)]));

function selectedBy(selector) {
  try {
    return described(controls().filter((element) => (boxesOf(element) ?? [element]).some((item) => item.matches(selector))));
  } catch {
    return [];
  }
}

// What is typed into and checked by the browser before it is sent, each without what it holds: what is accepted there is
// in its attributes.
const rules = () => visibleControls().filter((element) => isTyped(element) && !boxesOf(element) && isChecked(element)).map((element) => {
  const bare = element.cloneNode(false);
  for (const name of ["value", "readonly", "disabled", "required", "list"]) bare.removeAttribute(name);
  return { control: described([element])[0], html: bare.outerHTML };
});
const isTyped = (element) => ["input", "textarea"].includes(element.localName) &&
  ["text", "email", "tel", "number", "date", "textarea"].includes(kindOf(element));

const isChecked = ({ form }) => Boolean(form) && !form.noValidate &&
  Array.from(form.elements).some((button) => sends(button) && !button.formNoValidate);

// Whether a button hands in a form that has nothing left to fill in.
const confirms = () => visibleControls().some((element) => kindOf(element) === "button" && sends(element) &&
  element.form.method === "post" && !visibleControls().some((field) => field.form === element.form && !sends(field)));

// The buttons that send a form, each with the fields of its form.
const senders = () => visibleControls().filter((element) => kindOf(element) === "button" && sends(element)).map((button) => ({
  button: described([button])[0],
  fields: controls().filter((element) => element.form === button.form && !sends(element)).map(fieldOf).filter(Boolean),
}));

const fillIn = ({ answers, files }) => give(answers, files);
