// The controls of a document in reading order, named as the browser's accessibility tree names them.
const INPUT_KINDS = {
  text: "text", search: "text", password: "text", url: "text", email: "email", tel: "tel", number: "number",
  date: "date", time: "date", month: "date", week: "date", "datetime-local": "date", color: "text", range: "number",
  radio: "radio", checkbox: "checkbox", file: "file", submit: "button", button: "button", reset: "button", image: "button",
};
// Plain elements that are made into controls.
const ROLE_KINDS = {
  checkbox: "checkbox", switch: "checkbox", radio: "radio", combobox: "select", button: "button",
};
// How a value must be written, where that is not what its kind says.
const FORMATS = {
  time: "hh:mm", month: "YYYY-MM", week: "YYYY-Www", "datetime-local": "YYYY-MM-DDThh:mm", color: "#rrggbb",
};
const CONTROLS = "input, textarea, select, button, a[href], summary, [role], [contenteditable]";
const KINDS_KNOWN_BY_NAME = new Set(["radio", "checkbox", "button", "link"]);

function kindOf(element) {
  if (boxesOf(element)) return "text";
  switch (element.localName) {
    case "textarea": return "textarea";
    case "select": return element.multiple ? "multiselect" : "select";
    case "summary":
    case "button": return "button";
    case "a": return "link";
    case "input": return INPUT_KINDS[element.type] ?? null;
    default: return plainKind(element);
  }
}

// The kind of a plain element: what it can be written into, or what its role says.
function plainKind(element) {
  if (isEditor(element)) return "textarea";
  const role = element.getAttribute("role");
  if (role === "listbox") return isOwnList(element) ? (isOfSeveral(element) ? "multiselect" : "select") : null;
  return ROLE_KINDS[role] ?? null;
}

const isEditor = (element) => element.isContentEditable && element.hasAttribute("contenteditable");
const isNative = (element) => ["input", "textarea", "select"].includes(element.localName);
const isOfSeveral = (list) => list.getAttribute("aria-multiselectable") === "true";
// A list that no other control opens.
const isOwnList = (list) => !list.id ||
  !list.getRootNode().querySelector(`[aria-controls~="${CSS.escape(list.id)}"], [aria-owns~="${CSS.escape(list.id)}"]`);

const squeeze = (text) => text.replace(/\s+/g, " ").trim();
const isRendered = (element) => element.checkVisibility({ visibilityProperty: true });

function hasBox(element) {
  const box = element.getBoundingClientRect();
  return isRendered(element) && box.width > 0 && box.height > 0;
}

const isVisible = (element) => hasBox(element) || labelInFront(element) !== null;

// The label through which a box, radio or file field is used that is itself hidden.
function labelInFront(element) {
  if (!["checkbox", "radio", "file"].includes(element.type)) return null;
  return Array.from(element.labels ?? []).find(hasBox) ?? null;
}

// Text of a subtree without the control it labels, and without what is hidden (unless all of it is hidden).
function textOf(root, control = null) {
  const skipsHidden = isRendered(root);
  const read = (node) => {
    if (node.nodeType === Node.TEXT_NODE) return node.nodeValue;
    if (node.nodeType !== Node.ELEMENT_NODE || node === control || node.matches("input, select, textarea")) return "";
    if (node.getAttribute("aria-hidden") === "true" || (skipsHidden && !isRendered(node))) return "";
    const text = Array.from(node.childNodes, read).join("");
    return getComputedStyle(node).display.startsWith("inline") ? text : ` ${text} `;
  };
  return squeeze(read(root));
}

function referencedText(element, attribute) {
  const ids = (element.getAttribute(attribute) ?? "").split(/\s+/).filter(Boolean);
  const byId = (id) => element.getRootNode().getElementById?.(id);
  return squeeze(ids.map(byId).filter(Boolean).map((node) => textOf(node)).join(" "));
}

function accessibleName(element) {
  const own = () => {
    if (element.localName === "button" || element.localName === "a") return textOf(element);
    if (element.type === "image") return element.alt || element.value || "Submit";
    if (element.localName === "input" && kindOf(element) === "button") {
      return element.value || (element.type === "reset" ? "Reset" : "Submit");
    }
    if (isNative(element)) return squeeze(Array.from(element.labels ?? [], (label) => textOf(label, element)).join(" "));
    return KINDS_KNOWN_BY_NAME.has(kindOf(element)) ? textOf(element) : "";
  };
  return (
    referencedText(element, "aria-labelledby") ||
    squeeze(element.getAttribute("aria-label") ?? "") ||
    own() ||
    squeeze(element.title || element.placeholder || element.getAttribute("aria-placeholder") || "") ||
    (isOption(element) ? textBeside(element) || element.value : "")
  );
}

const isOption = (element) => element.localName === "input" && ["radio", "checkbox"].includes(element.type);

// What stands behind a box or radio that no label is tied to.
function textBeside(element) {
  for (let node = element.nextSibling; node; node = node.nextSibling) {
    if (node.nodeType === Node.ELEMENT_NODE && (node.matches("input, select, textarea, button") || node.querySelector("input"))) break;
    const text = node.nodeType === Node.TEXT_NODE ? squeeze(node.nodeValue) : node.nodeType === Node.ELEMENT_NODE ? textOf(node) : "";
    if (text) return text;
  }
  return "";
}

// What a reader takes for the name of a control that has none: the text before it, in its row or its own surroundings.
function textBefore(element) {
  for (let node = element; node && !node.matches("form, body, fieldset"); node = node.parentElement) {
    for (let other = node.previousSibling; other; other = other.previousSibling) {
      if (other.nodeType === Node.ELEMENT_NODE && (other.matches(NATIVE) || other.querySelector(NATIVE))) return "";
      const text = other.nodeType === Node.TEXT_NODE ? squeeze(other.nodeValue) : other.nodeType === Node.ELEMENT_NODE ? textOf(other) : "";
      if (text) return text.replace(/[\s:*]+$/, "");
    }
    if (node.matches("tr, p, li, dl")) return "";
  }
  return "";
}

const NATIVE = "input:not([type=hidden]), select, textarea, button, [contenteditable]";
const ownName = (element) => (boxesOf(element) ? nameOfRow(boxesOf(element)) : accessibleName(element));
const shownName = (element) => ownName(element) || (isNative(element) || isEditor(element) ? textBefore(element) : "");

// The legend of a radio or of one box among several; a box that stands alone has no group.
function groupName(element) {
  const isBox = kindOf(element) === "checkbox" && sameName(element).length > 1;
  if (kindOf(element) !== "radio" && !isBox) return "";
  const group = element.closest("fieldset, [role=group], [role=radiogroup]");
  if (!group) return textBeforeAll(sameName(element));
  return legendOf(group);
}

function legendOf(group) {
  const legend = group.localName === "fieldset" ? group.querySelector(":scope > legend") : null;
  return referencedText(group, "aria-labelledby") || squeeze(group.getAttribute("aria-label") ?? "") ||
    (legend ? textOf(legend) : "");
}

// What stands before the options of a group that has no legend: before the smallest part of the page that holds them all.
function textBeforeAll(peers) {
  let whole = peers[0].parentElement;
  while (whole && !peers.every((peer) => whole.contains(peer))) whole = whole.parentElement;
  if (!whole || peers.length < 2) return "";
  let first = peers[0];
  while (first.parentElement !== whole) first = first.parentElement;
  return textBefore(first) || (whole.matches("form, body") ? "" : textBefore(whole));
}

function sameName(element) {
  const root = element.getRootNode();
  if (!element.name) return [element];
  const peers = root === document ? document.getElementsByName(element.name) : root.querySelectorAll(`[name="${CSS.escape(element.name)}"]`);
  return Array.from(peers).filter((peer) => peer.type === element.type);
}

const realOptions = (select) => Array.from(select.options).filter((option) => option.value !== "");

// Options that look alike are told apart by their group.
function optionText(option) {
  const text = squeeze(option.label);
  const group = option.parentElement;
  if (group?.localName !== "optgroup") return text;
  const isAlone = Array.from(option.closest("select").options).every((other) => other === option || squeeze(other.label) !== text);
  return isAlone ? text : `${text} (${squeeze(group.label)})`;
}

// A box among several is told by its name.
const tickedText = (box) => (sameName(box).length > 1 ? accessibleName(box) : "on");

// Values as a reader sees them: option texts, names of ticked boxes, typed text; empty where nothing is given.
function valuesOf(element) {
  switch (kindOf(element)) {
    case "select":
    case "multiselect": return chosenOf(element);
    case "radio": return isTicked(element) ? [accessibleName(element)] : [];
    case "checkbox": return isTicked(element) ? [tickedText(element)] : [];
    case "file": return Array.from(element.files, (file) => file.name);
    default: return textIn(element) === "" ? [] : [textIn(element)];
  }
}

const isTicked = (element) => (isNative(element) ? element.checked : element.getAttribute("aria-checked") === "true");
const ownTextIn = (element) => (isNative(element) ? element.value : element.innerText.replace(/\n$/, ""));
const textIn = (element) => (boxesOf(element) ?? [element]).map(ownTextIn).join("");

// Options of a list that opens below a field which is typed into.
function listed(element) {
  if (element.getAttribute("role") !== "combobox") return [];
  return optionsIn(listOf(element));
}

// The list of a control that is made of plain elements.
function listOf(element) {
  if (element.getAttribute("role") === "listbox") return element;
  const named = element.getAttribute("aria-controls") ?? element.getAttribute("aria-owns") ?? "";
  return element.getRootNode().getElementById?.(named) ?? null;
}

const optionElements = (list) => (list ? Array.from(list.querySelectorAll("[role=option]")) : []);
const optionsIn = (list) => optionElements(list).map((option) => squeeze(option.textContent));

// What is chosen. A list of plain elements says it by an attribute, or by what stands in the control.
function chosenOf(element) {
  if (element.localName === "select") return realOptions(element).filter((option) => option.selected).map(optionText);
  const options = optionElements(listOf(element));
  const marked = options.filter((option) => option.getAttribute("aria-selected") === "true").map((option) => squeeze(option.textContent));
  if (element.getAttribute("role") === "listbox") return marked;
  const shown = textOf(element);
  return options.some((option) => squeeze(option.textContent) === shown) ? [shown] : marked;
}

function optionsOf(element) {
  if (element.localName === "select") return realOptions(element).map(optionText);
  if (boxesOf(element)) return [`${boxesOf(element).length} characters`];
  if (FORMATS[element.type]) return [FORMATS[element.type]];
  return ["select", "multiselect"].includes(kindOf(element)) ? optionsIn(listOf(element)) : listed(element);
}

// What a control is sent as: by its name, else by what a script would call it; radios are called by their group.
function fieldOf(element) {
  const kind = kindOf(element);
  const isCommand = kind === "button" || kind === "link";
  const own = () => (kind === "radio" && groupName(element)) || ownName(element) || element.id;
  return element.getAttribute("name") || (isCommand ? "" : own());
}

// The part of a control's identity that its label has: options of a group share their field.
const labelInKey = (element) => (KINDS_KNOWN_BY_NAME.has(kindOf(element)) ? accessibleName(element) : "");

// Records of these controls. Those that share kind, field and label are told apart by their place in the document.
function described(elements) {
  const peers = new Map();
  for (const element of controls()) {
    const key = JSON.stringify([kindOf(element), fieldOf(element), labelInKey(element)]);
    if (!peers.has(key)) peers.set(key, []);
    peers.get(key).push(element);
  }
  const places = new Map([...peers.values()].flatMap((alike) => alike.map((element, place) => [element, place])));
  return elements.map((element) => ({ ...describe(element), place: places.get(element) }));
}

function describe(element) {
  const kind = kindOf(element);
  const isOption = kind === "radio" || kind === "checkbox";
  const isCommand = kind === "button" || kind === "link";
  return {
    kind,
    name: shownName(element),
    group: groupName(element),
    options: optionsOf(element),
    required: Boolean(element.required) || element.getAttribute("aria-required") === "true",
    disabled: isDisabled(element),
    value: isCommand ? "" : isOption ? (isTicked(element) ? "checked" : "") : valuesOf(element).join(", "),
    field: fieldOf(element),
  };
}

const isDisabled = (element) => element.matches(":disabled") || (!isNative(element) && element.getAttribute("aria-disabled") === "true");
const controls = () => withoutFurtherBoxes(allElements(document).filter((element) => kindOf(element)));
const visibleControls = () => controls().filter(isVisible);

function heading() {
  const first = Array.from(document.querySelectorAll("h1")).find(isRendered);
  return first ? textOf(first) : squeeze(document.title);
}

const inventory = () => ({ title: heading(), controls: described(visibleControls()) });

// Values of all visible controls by field name; what the form would send, in visible text.
function snapshot() {
  const values = {};
  for (const element of visibleControls()) {
    const field = ["button", "link"].includes(kindOf(element)) ? "" : fieldOf(element);
    if (field) (values[field] ??= []).push(...valuesOf(element));
  }
  return values;
}

// By field, what a server receives for each thing that can be chosen, and how a reader sees it: now, and whenever this was
// asked for before.
const choosable = {};
function choices() {
  for (const element of visibleControls()) {
    const texts = (choosable[fieldOf(element)] ??= {});
    if (element.localName === "select") for (const option of realOptions(element)) texts[option.value] = optionText(option);
    else if (kindOf(element) === "radio") texts[element.value] = accessibleName(element);
    else if (kindOf(element) === "checkbox") texts[element.value] = tickedText(element);
    Object.assign(texts, mirrored.get(fieldOf(element))?.texts);
  }
  return choosable;
}

// By field, the ids of its controls and the hidden fields that follow it, under which scripts may send it.
function identities() {
  const found = {};
  for (const element of visibleControls()) {
    const names = [element.id, ...(mirrored.get(fieldOf(element))?.names ?? [])].filter(Boolean);
    if (names.length) (found[fieldOf(element)] ??= []).push(...names);
  }
  return found;
}

// Hidden fields that changed with a control which has no name of its own: by its field, their names, and what each of
// their values stands for.
const mirrored = new Map();
const hiddenValues = () => new Map(Array.from(document.querySelectorAll("input[type=hidden][name]"), (field) => [field.name, field.value]));

async function mirroring(element, act) {
  if (element.getAttribute("name")) return act();
  const before = hiddenValues();
  await act();
  const changed = [...hiddenValues()].filter(([name, value]) => before.get(name) !== value);
  const known = mirrored.get(fieldOf(element)) ?? { names: new Set(), texts: {} };
  for (const [name, value] of changed) {
    known.names.add(name);
    if (value !== "") known.texts[value] = valuesOf(element).join(", ");
  }
  if (changed.length) mirrored.set(fieldOf(element), known);
}

function alerts() {
  return Array.from(document.querySelectorAll("[role=alert]")).filter(isRendered).map((node) => textOf(node));
}
