// Typing as pages hear it. Where somebody listens to keys, the last character comes by a key of its own, so that keydown,
// keypress and keyup are raised; elsewhere a text is set at once.
const SET_INPUT = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set;
const SET_TEXTAREA = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set;
const setValue = (element, value) => (element.localName === "textarea" ? SET_TEXTAREA : SET_INPUT).call(element, value);

const KEY_EVENTS = ["keydown", "keypress", "keyup"];
const listeners = new WeakSet();
const listen = EventTarget.prototype.addEventListener;
EventTarget.prototype.addEventListener = function (type, ...given) {
  if (KEY_EVENTS.includes(type)) listeners.add(this ?? window);
  return listen.call(this ?? window, type, ...given);
};

// Whether the element or anything around it listens to keys.
function hearsKeys(element) {
  const hears = (target) => listeners.has(target) || KEY_EVENTS.some((type) => target[`on${type}`]);
  for (let node = element; node; node = node.parentNode ?? node.host) if (hears(node)) return true;
  return hears(window);
}

const isOnKeyboard = (value) => /[ -~]$/.test(value);
const lastKey = (value) => Array.from(value).at(-1);

// False where the page forbids what the key would do.
function raiseKey(element, type, key) {
  const code = key.length === 1 ? key.toUpperCase().charCodeAt(0) : { Delete: 46 }[key] ?? 0;
  const charCode = type === "keypress" ? key.charCodeAt(0) : 0;
  return element.dispatchEvent(new KeyboardEvent(type, {
    key, charCode, keyCode: charCode || code, which: charCode || code, bubbles: true, cancelable: true, composed: true,
  }));
}

function writeInto(element, value, inputType, data) {
  setValue(element, value);
  element.dispatchEvent(new InputEvent("input", { bubbles: true, composed: true, inputType, data }));
}

function write(element, value) {
  if (!hearsKeys(element)) writeInto(element, value, "insertText", value);
  else if (value === "") erase(element);
  else typeLastKey(element, value);
}

function erase(element) {
  if (raiseKey(element, "keydown", "Delete")) writeInto(element, "", "deleteContentBackward", null);
  raiseKey(element, "keyup", "Delete");
}

// A number that is half written reads as nothing, so it is written whole.
function typeLastKey(element, value) {
  if (!isOnKeyboard(value)) {
    writeInto(element, value, "insertText", value);
    raiseMissingKey(element, value);
    return;
  }
  const key = lastKey(value);
  const before = kindOf(element) === "number" ? "" : value.slice(0, -key.length);
  const rest = value.slice(before.length);
  if (before) writeInto(element, before, "insertText", before);
  else setValue(element, "");
  if (raiseKey(element, "keydown", key) && raiseKey(element, "keypress", key)) {
    const whole = element.value + rest;
    writeInto(element, element.maxLength >= 0 ? whole.slice(0, element.maxLength) : whole, "insertText", rest);
  }
  raiseKey(element, "keyup", key);
}

// A last character that the keyboard has no key for is inserted with the others, and its key is raised afterwards.
function raiseMissingKey(element, value) {
  if (value === "" || isOnKeyboard(value)) return;
  raiseKey(element, "keydown", lastKey(value));
  raiseKey(element, "keyup", lastKey(value));
}
