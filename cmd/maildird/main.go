// Maildird serves Maildirs over IMAP.
package main

func main() {}
