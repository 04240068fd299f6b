<?php
// One form, as people write them in PHP: a token in the session, errors above the form with status 200, values kept.
session_start();
$_SESSION['token'] ??= bin2hex(random_bytes(16));
$errors = [];
if ($_SERVER['REQUEST_METHOD'] === 'POST') {
    if (!hash_equals($_SESSION['token'], $_POST['token'] ?? '')) { http_response_code(403); exit('Wrong token.'); }
    if (trim($_POST['name'] ?? '') === '') $errors[] = 'Name is missing.';
    if (!filter_var($_POST['email'] ?? '', FILTER_VALIDATE_EMAIL)) $errors[] = 'That is not an e-mail address.';
    if (empty($_POST['day'])) $errors[] = 'Choose a day.';
    if (!$errors) { header('Location: /thanks.php', true, 303); exit; }
}
$kept = fn (string $name): string => htmlspecialchars((string) ($_POST[$name] ?? ''));
$ticked = fn (string $name, string $value): string => in_array($value, (array) ($_POST[$name] ?? [])) ? 'checked' : '';
?>
<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Visit</title></head><body><h1>Plan a visit</h1>
<?php if ($errors): ?><ul class="errors"><?php foreach ($errors as $text): ?><li><?= $text ?></li><?php endforeach ?></ul>
<?php endif ?>
<form method="post"><input type="hidden" name="token" value="<?= $_SESSION['token'] ?>">
<p><label for="name">Name</label> <input id="name" name="name" value="<?= $kept('name') ?>"></p>
<p><label for="email">Email</label> <input id="email" name="email" value="<?= $kept('email') ?>"></p>
<fieldset><legend>Day</legend>
<?php foreach (['Saturday', 'Sunday'] as $day): ?>
<label><input type="radio" name="day" value="<?= $day ?>" <?= $ticked('day', $day) ?>> <?= $day ?></label>
<?php endforeach ?></fieldset>
<fieldset><legend>Interests</legend>
<?php foreach (['Glass', 'Clay', 'Paper'] as $topic): ?>
<label><input type="checkbox" name="topics[]" value="<?= strtolower($topic) ?>"
  <?= $ticked('topics', strtolower($topic)) ?>> <?= $topic ?></label>
<?php endforeach ?></fieldset>
<p><label for="note">Note</label> <textarea id="note" name="note"><?= $kept('note') ?></textarea></p>
<button>Plan the visit</button></form></body></html>
