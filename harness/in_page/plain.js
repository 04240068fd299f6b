// Acts on controls that are made of plain elements: editors, and lists that open below what shows the choice.
function writeEditor(element, value) {
  const view = element.ownerDocument;
  view.getSelection().selectAllChildren(element);
  if (value === "") view.execCommand("delete");
  else view.execCommand("insertText", false, value);
}

// The list is opened where the option cannot be seen, and waited for.
async function selectPlain(element, text) {
  if (chosenOf(element).includes(text)) return OK;
  const seen = () => { const option = optionOf(element, text); return option && hasBox(option) ? option : null; };
  if (!seen() && element.getAttribute("role") === "combobox") click(element);
  await patiently(() => (seen() ? OK : noOption(element)));
  const option = optionOf(element, text);
  if (!option) return noOption(element);
  option.scrollIntoView({ block: "nearest", behavior: "instant" });
  click(option);
  await patiently(() => (chosenOf(element).includes(text) ? OK : noOption(element)));
  return chosenOf(element).includes(text) ? OK : difference(text, chosenOf(element).join(", "));
}
