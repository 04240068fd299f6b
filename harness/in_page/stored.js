// What a document found in the stores of its origin before any script of its own ran; reading may be forbidden to it.
// Only for tabs that are used again: the cookies alone cost a wait for another process in every document.
const foundAtStart = (() => {
  const found = [];
  if (!IS_USED_AGAIN) return found;
  const note = (name, read) => { try { if (read()) found.push(name); } catch { /* no access: nothing to find */ } };
  note("local storage", () => localStorage.length);
  note("session storage", () => sessionStorage.length);
  note("window.name", () => window.name);
  note("cookies", () => document.cookie);
  return found;
})();
const storedAtStart = () => foundAtStart;
