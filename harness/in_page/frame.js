// In a frame of an arena: tells the host page that this document is there, and keeps to itself what a tab of its own
// would have: dialogs, which would stop all frames, and the length of the history, which all frames share.
function joinArena() {
  let place = null;
  try {
    place = window.frameElement?.__dllmSlot ?? null;
  } catch {
    return;
  }
  if (place === null || !location.protocol.startsWith("http")) return;
  const before = place.count();
  window.alert = (text = "") => { place.dialogs.push(`alert: ${text}`); };
  window.confirm = (text = "") => { place.dialogs.push(`confirm: ${text}`); return true; };
  window.prompt = (text = "") => { place.dialogs.push(`prompt: ${text}`); return null; };
  Object.defineProperty(history, "length", { get: () => before + FIRST_HISTORY_LENGTH });
  document.addEventListener("DOMContentLoaded", () => {
    const status = performance.getEntriesByType("navigation")[0]?.responseStatus ?? 0;
    place.arrive({ isError: false, status });
  });
}
joinArena();
