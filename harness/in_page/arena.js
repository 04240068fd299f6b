// The host page of an arena: one frame a rollout, loaded, called into and watched from here.
(() => {
  const slots = new Map();

  function slot(number) {
    const found = slots.get(number);
    if (!found) throw new Error("Frame was detached");
    return found;
  }

  // A document has come up in a frame, or its error page has.
  function arrive(state, document) {
    state.documents.push(document);
    state.interrupt?.(new Error("Execution context was destroyed"));
    state.wake?.();
  }

  function open(number, url) {
    close(number);
    const frame = document.createElement("iframe");
    const state = { frame, documents: [], dialogs: [], wake: null, interrupt: null };
    frame.__dllmSlot = { dialogs: state.dialogs, count: () => state.documents.length, arrive: (seen) => arrive(state, seen) };
    frame.addEventListener("load", () => { if (isError(frame)) arrive(state, { isError: true, status: 0 }); });
    frame.src = url;
    slots.set(number, state);
    document.body.append(frame);
    return loaded(number, 0);
  }

  // The error page of a failed load belongs to another origin, which hides it from us.
  function isError(frame) {
    try {
      return frame.contentWindow.location.href === undefined;
    } catch {
      return true;
    }
  }

  async function loaded(number, after) {
    const state = slot(number);
    while (state.documents.length <= after) await new Promise((done) => { state.wake = done; });
    return { ...state.documents.at(-1), numDocuments: state.documents.length };
  }

  // What a function of the frame's own script returns; a document that is replaced meanwhile never would.
  async function call(number, name, argument) {
    const state = slot(number);
    const numDocuments = state.documents.length;
    const interrupted = new Promise((_, fail) => { state.interrupt = fail; });
    const script = state.frame.contentWindow.__dllm;
    if (!script) throw new Error("Execution context was destroyed");
    const value = await Promise.race([script[name](argument), interrupted]);
    state.interrupt = null;
    return { value, numDocuments, dialogs: state.dialogs.splice(0) };
  }

  // Real mouse and keyboard go to the frame on top that has the focus.
  function raise(number) {
    for (const [other, state] of slots) state.frame.style.zIndex = other === number ? 1 : 0;
    slot(number).frame.contentWindow.focus();
  }

  function close(number) {
    slots.get(number)?.frame.remove();
    slots.delete(number);
  }

  Object.defineProperty(window, "__arena", { value: { open, loaded, call, raise, close } });
})();
