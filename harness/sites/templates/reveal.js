(() => {
  const isAnswered = (name, answer) => [...document.getElementsByName(name)].some((control) => {
    if (control.disabled) return false;
    if (control.type === "radio" || control.type === "checkbox") return control.checked && control.value === answer;
    return control.value === answer;
  });
  const update = () => document.querySelectorAll("[data-when]").forEach((box) => {
    const open = isAnswered(box.dataset.when, box.dataset.answer);
    box.hidden = !open;
    box.querySelectorAll("input, select, textarea").forEach((control) => { control.disabled = !open; });
  });
  document.addEventListener("input", update);
  document.addEventListener("change", update);
  update();
})();
