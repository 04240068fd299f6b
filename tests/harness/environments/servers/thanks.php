<!doctype html><html lang="en"><title>Thanks</title><h1>Thank you.</h1></html>
