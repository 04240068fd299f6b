// The controls of a document in reading order, named as the browser's accessibility tree names them.
const INPUT_KINDS = {
  text: "text", search: "text", password: "text", url: "text", email: "email", tel: "tel", number: "number",
  date: "date", time: "date", month: "date", radio: "radio", checkbox: "checkbox",
  range: "number", file: "file", submit: "button", button: "button", reset: "button",
};
const CONTROLS = "input, textarea, select, button, a[href]";
const KINDS_KNOWN_BY_NAME = new Set(["radio", "checkbox", "button", "link"]);

function kindOf(element) {
  switch (element.localName) {
    case "textarea": return "textarea";
    case "select": return element.multiple ? "multiselect" : "select";
    case "button": return "button";
    case "a": return "link";
    default: return INPUT_KINDS[element.type] ?? null;
  }
}

const squeeze = (text) => text.replace(/\s+/g, " ").trim();
const isRendered = (element) => element.checkVisibility({ visibilityProperty: true });

function isVisible(element) {
  const box = element.getBoundingClientRect();
  return isRendered(element) && box.width > 0 && box.height > 0;
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
  return squeeze(ids.map((id) => document.getElementById(id)).filter(Boolean).map((node) => textOf(node)).join(" "));
}

function accessibleName(element) {
  const own = () => {
    if (element.localName === "button" || element.localName === "a") return textOf(element);
    if (kindOf(element) === "button") return element.value || (element.type === "reset" ? "Reset" : "Submit");
    return squeeze(Array.from(element.labels ?? [], (label) => textOf(label, element)).join(" "));
  };
  return (
    referencedText(element, "aria-labelledby") ||
    squeeze(element.getAttribute("aria-label") ?? "") ||
    own() ||
    squeeze(element.title || element.placeholder || "")
  );
}

// The legend of a radio or of one box among several; a box that stands alone has no group.
function groupName(element) {
  const isBox = kindOf(element) === "checkbox" && sameName(element).length > 1;
  if (kindOf(element) !== "radio" && !isBox) return "";
  const group = element.closest("fieldset, [role=group], [role=radiogroup]");
  if (!group) return "";
  const legend = group.localName === "fieldset" ? group.querySelector(":scope > legend") : null;
  return referencedText(group, "aria-labelledby") || squeeze(group.getAttribute("aria-label") ?? "") ||
    (legend ? textOf(legend) : "");
}

function sameName(element) {
  const peers = element.name ? Array.from(document.getElementsByName(element.name)) : [element];
  return peers.filter((peer) => peer.type === element.type);
}

const realOptions = (select) => Array.from(select.options).filter((option) => option.value !== "");
const optionText = (option) => squeeze(option.label);

// A box among several is told by its name.
const tickedText = (box) => (sameName(box).length > 1 ? accessibleName(box) : "on");

// Values as a reader sees them: option texts, names of ticked boxes, typed text; empty where nothing is given.
function valuesOf(element) {
  switch (kindOf(element)) {
    case "select":
    case "multiselect": return realOptions(element).filter((option) => option.selected).map(optionText);
    case "radio": return element.checked ? [accessibleName(element)] : [];
    case "checkbox": return element.checked ? [tickedText(element)] : [];
    case "file": return Array.from(element.files, (file) => file.name);
    default: return element.value === "" ? [] : [element.value];
  }
}

// Options of a list that opens below a field which is typed into.
function listed(element) {
  if (element.getAttribute("role") !== "combobox") return [];
  const list = document.getElementById(element.getAttribute("aria-controls") ?? "");
  return list ? Array.from(list.querySelectorAll("[role=option]"), (option) => squeeze(option.textContent)) : [];
}

function optionsOf(element) {
  const isSelect = element.localName === "select";
  return isSelect ? realOptions(element).map(optionText) : listed(element);
}

// What a control is sent as: by its name, else by what a script would call it.
function fieldOf(element) {
  const isCommand = ["button", "link"].includes(kindOf(element));
  return element.getAttribute("name") || (isCommand ? "" : accessibleName(element) || element.id);
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
  const isTicked = kind === "radio" || kind === "checkbox";
  const isCommand = kind === "button" || kind === "link";
  return {
    kind,
    name: accessibleName(element),
    group: groupName(element),
    options: optionsOf(element),
    required: Boolean(element.required),
    disabled: element.matches(":disabled"),
    value: isCommand ? "" : isTicked ? (element.checked ? "checked" : "") : valuesOf(element).join(", "),
    field: fieldOf(element),
  };
}

const controls = () => Array.from(document.querySelectorAll(CONTROLS)).filter((element) => kindOf(element));
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

// By field, what a server receives for each thing that can be chosen, and how a reader sees it.
function choices() {
  const found = {};
  for (const element of visibleControls()) {
    const texts = (found[fieldOf(element)] ??= {});
    if (element.localName === "select") for (const option of realOptions(element)) texts[option.value] = optionText(option);
    else if (kindOf(element) === "radio") texts[element.value] = accessibleName(element);
    else if (kindOf(element) === "checkbox") texts[element.value] = tickedText(element);
  }
  return found;
}

// By field, the ids of its controls, under which scripts may send it.
function identities() {
  const found = {};
  for (const element of visibleControls()) if (element.id) (found[fieldOf(element)] ??= []).push(element.id);
  return found;
}

function alerts() {
  return Array.from(document.querySelectorAll("[role=alert]")).filter(isRendered).map((node) => textOf(node));
}
