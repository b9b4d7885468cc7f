package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// wantEqual compares two things by how they print.
func wantEqual(t *testing.T, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		t.Errorf("%s is\n%s, not\n%s", what, g, w)
	}
}

// wantRefusal wants a NO with a response code.
func wantRefusal(t *testing.T, what string, err error, code imap.ResponseCode) {
	t.Helper()
	e, ok := err.(*imap.Error)
	if !ok || e.Type != imap.StatusResponseTypeNo || e.Code != code {
		t.Errorf("%s: got %v, not NO [%s]", what, err, code)
	}
}

// listed is a line for each name of a LIST: name, sorted attributes, and more.
func listed(t *testing.T, c *imapclient.Client, pattern string, o *imap.ListOptions) string {
	t.Helper()
	list, err := c.List("", pattern, o).Collect()
	must(t, err)
	var lines []string
	for _, l := range list {
		slices.Sort(l.Attrs)
		line := fmt.Sprint(l.Mailbox, " ", l.Attrs)
		if st := l.Status; st != nil {
			line += fmt.Sprintf(" messages %d unseen %d size %d next %d", *st.NumMessages, *st.NumUnseen, *st.Size, st.UIDNext)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

const attachment = "From: Ann <ann@test.example>\r\n" +
	"To: team: ben@test.example, cid@test.example;\r\n" +
	"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n" +
	"Message-ID: <1@test.example>\r\n" +
	"Date: Mon, 2 Jan 2006 15:04:05 -0700\r\n" +
	"MIME-Version: 1.0\r\n" +
	"Content-Type: multipart/mixed; boundary=b\r\n" +
	"\r\n" +
	"--b\r\n" +
	"Content-Type: text/plain; charset=iso-8859-1\r\n" +
	"Content-Transfer-Encoding: quoted-printable\r\n" +
	"\r\n" +
	"K=F6ln\r\n" +
	"--b\r\n" +
	"Content-Type: application/octet-stream; name=x.bin\r\n" +
	"Content-Disposition: attachment; filename=x.bin\r\n" +
	"Content-Transfer-Encoding: base64\r\n" +
	"\r\n" +
	"AAECAw0KDQ==\r\n" +
	"--b--\r\n"

// go-imap's own client lives through the life of a mailbox, with all that the server announces.
func TestImapclient(t *testing.T) {
	_, location := mailDir(t)
	s := serve(t, location, `
[[mail.folder]]
name = "Sent"
special_use = '\Sent'
subscribe = true
`)
	c := s.client(t, "ada", nil)
	for _, name := range []imap.Cap{
		imap.CapIMAP4rev1, imap.CapIMAP4rev2, imap.CapNamespace, imap.CapIdle, imap.CapMove, imap.CapESearch, imap.CapSearchRes, imap.CapUIDPlus,
		imap.CapListExtended, imap.CapListStatus, imap.CapStatusSize, imap.CapSpecialUse, imap.CapBinary, imap.CapUnauthenticate, imap.CapChildren,
	} {
		if !c.Caps().Has(name) {
			t.Errorf("no %s among %v", name, slices.Sorted(maps.Keys(c.Caps())))
		}
	}
	ns, err := c.Namespace().Wait()
	must(t, err)
	wantEqual(t, "NAMESPACE", *ns, imap.NamespaceData{Personal: []imap.NamespaceDescriptor{{Prefix: "", Delim: '.'}}})

	// Names
	must(t, c.Create("Life", nil).Wait())
	must(t, c.Create("Life.Ärger", nil).Wait())
	must(t, c.Create("Old", &imap.CreateOptions{SpecialUse: []imap.MailboxAttr{imap.MailboxAttrArchive}}).Wait())
	must(t, c.Subscribe("Life.Ärger").Wait())
	wantRefusal(t, "CREATE of what is there", c.Create("Life", nil).Wait(), imap.ResponseCodeAlreadyExists)
	wantEqual(t, "LIST", listed(t, c, "*", &imap.ListOptions{ReturnSpecialUse: true, ReturnSubscribed: true, ReturnChildren: true}), strings.Join([]string{
		`INBOX [\HasNoChildren]`, `Life [\HasChildren]`, `Life.Ärger [\HasNoChildren \Subscribed]`,
		`Old [\Archive \HasNoChildren]`, `Sent [\HasNoChildren \Sent \Subscribed]`}, "\n"))
	special, err := c.List("", "*", &imap.ListOptions{SelectSpecialUse: true, ReturnSpecialUse: true}).Collect()
	must(t, err)
	wantEqual(t, "LIST (SPECIAL-USE)", len(special), 2)
	below, err := c.List("", "%", &imap.ListOptions{SelectSubscribed: true, SelectRecursiveMatch: true}).Collect()
	must(t, err)
	if i := slices.IndexFunc(below, func(l *imap.ListData) bool { return l.Mailbox == "Life" }); i < 0 || below[i].ChildInfo == nil || !below[i].ChildInfo.Subscribed {
		t.Errorf("LIST (SUBSCRIBED RECURSIVEMATCH) %% does not tell of what is subscribed below Life")
	}

	// APPEND
	date := time.Date(2001, 2, 3, 4, 5, 6, 0, time.FixedZone("", -5*3600))
	got := appendMail(t, c, "Life", attachment, &imap.AppendOptions{Flags: []imap.Flag{imap.FlagSeen, "$Work"}, Time: date})
	wantEqual(t, "APPENDUID", got.UID, 1)
	for i := range 4 {
		appendMail(t, c, "Life", fmt.Sprintf("Subject: number %d\r\n\r\nx\r\n", i+2), nil)
	}
	nowhere := c.Append("Nowhere", 0, nil)
	nowhere.Close()
	_, err = nowhere.Wait()
	wantRefusal(t, "APPEND to nowhere", err, imap.ResponseCodeTryCreate)
	st, err := c.Status("Life", &imap.StatusOptions{NumMessages: true, NumUnseen: true, Size: true, UIDNext: true, UIDValidity: true, NumDeleted: true}).Wait()
	must(t, err)
	wantEqual(t, "STATUS", fmt.Sprint(*st.NumMessages, *st.NumUnseen, *st.NumDeleted, *st.Size, st.UIDNext), fmt.Sprint(5, 4, 0, len(attachment)+4*25-4*1, 6))
	wantEqual(t, "UIDVALIDITY", st.UIDValidity, got.UIDValidity)
	wantEqual(t, "LIST-STATUS", listed(t, c, "Life", &imap.ListOptions{ReturnStatus: &imap.StatusOptions{NumMessages: true, NumUnseen: true, Size: true, UIDNext: true}}),
		fmt.Sprintf(`Life [\HasChildren] messages 5 unseen 4 size %d next 6`, *st.Size))

	// SELECT and FETCH
	sel, err := c.Select("Life", nil).Wait()
	must(t, err)
	wantEqual(t, "SELECT", fmt.Sprint(sel.NumMessages, sel.UIDNext, sel.UIDValidity), fmt.Sprint(5, 6, st.UIDValidity))
	if !slices.Contains(sel.PermanentFlags, imap.FlagWildcard) || !slices.Contains(sel.Flags, "$Work") {
		t.Errorf("PERMANENTFLAGS %v, FLAGS %v", sel.PermanentFlags, sel.Flags)
	}
	section := &imap.FetchItemBodySection{Part: []int{2}, Peek: true, Partial: &imap.SectionPartial{Offset: 4, Size: 6}}
	whole := &imap.FetchItemBodySection{Peek: true}
	binary := &imap.FetchItemBinarySection{Part: []int{2}, Peek: true}
	msgs, err := c.Fetch(imap.SeqSetNum(1), &imap.FetchOptions{
		UID: true, Flags: true, InternalDate: true, RFC822Size: true, Envelope: true,
		BodyStructure:     &imap.FetchItemBodyStructure{Extended: true},
		BodySection:       []*imap.FetchItemBodySection{whole, section},
		BinarySection:     []*imap.FetchItemBinarySection{binary},
		BinarySectionSize: []*imap.FetchItemBinarySectionSize{{Part: []int{2}}},
	}).Collect()
	must(t, err)
	wantEqual(t, "FETCH", len(msgs), 1)
	m := msgs[0]
	slices.Sort(m.Flags)
	wantEqual(t, "FLAGS", slices.DeleteFunc(m.Flags, func(f imap.Flag) bool { return f == `\Recent` }), []imap.Flag{"$Work", imap.FlagSeen})
	wantEqual(t, "INTERNALDATE", m.InternalDate.UTC(), date.UTC())
	wantEqual(t, "RFC822.SIZE", m.RFC822Size, len(attachment))
	wantEqual(t, "BODY[]", string(m.FindBodySection(whole)), attachment)
	wantEqual(t, "BODY[2]<4.6>", string(m.FindBodySection(section)), "Aw0KDQ")
	wantEqual(t, "BINARY[2]", m.FindBinarySection(binary), []byte{0, 1, 2, 3, '\r', '\n', '\r'})
	wantEqual(t, "BINARY.SIZE[2]", m.BinarySectionSize, []imapclient.FetchItemDataBinarySectionSize{{Part: []int{2}, Size: 7}})
	wantEqual(t, "ENVELOPE",
		fmt.Sprintf("%s %v %s %d", m.Envelope.Subject, m.Envelope.From, m.Envelope.MessageID, m.Envelope.Date.Unix()),
		"Grüße [{Ann ann test.example}] 1@test.example 1136239445")
	wantEqual(t, "the group in ENVELOPE", m.Envelope.To, []imap.Address{{Mailbox: "team"}, {Mailbox: "ben", Host: "test.example"}, {Mailbox: "cid", Host: "test.example"}, {}})
	parts := ""
	m.BodyStructure.Walk(func(path []int, part imap.BodyStructure) bool {
		parts += fmt.Sprint(path, part.MediaType(), " ")
		if p, ok := part.(*imap.BodyStructureSinglePart); ok {
			parts += fmt.Sprint(p.Encoding, p.Size, p.Filename(), " ")
		}
		return true
	})
	wantEqual(t, "BODYSTRUCTURE", parts, "[]multipart/mixed [1]text/plain quoted-printable6 [2]application/octet-stream base6412x.bin ")

	// SEARCH
	search := func(criteria imap.SearchCriteria, o imap.SearchOptions) *imap.SearchData {
		t.Helper()
		data, err := c.UIDSearch(&criteria, &o).Wait()
		must(t, err)
		return data
	}
	for _, test := range []struct {
		what     string
		criteria imap.SearchCriteria
		want     string
	}{
		{"SUBJECT grüße", imap.SearchCriteria{Header: []imap.SearchCriteriaHeaderField{{Key: "Subject", Value: "grüßE"}}}, "1"},
		{"BODY köln", imap.SearchCriteria{Body: []string{"köln"}}, "1"},
		{"KEYWORD $work", imap.SearchCriteria{Flag: []imap.Flag{"$work"}}, "1"},
		{"UNSEEN", imap.SearchCriteria{NotFlag: []imap.Flag{imap.FlagSeen}}, "2:5"},
		{"SENTBEFORE", imap.SearchCriteria{SentBefore: time.Date(2006, 1, 3, 0, 0, 0, 0, time.UTC), SentSince: time.Date(2006, 1, 2, 0, 0, 0, 0, time.UTC)}, "1"},
		{"SMALLER", imap.SearchCriteria{Smaller: 100}, "2:5"},
		{"OR", imap.SearchCriteria{Or: [][2]imap.SearchCriteria{{{Text: []string{"number 2"}}, {Text: []string{"number 4"}}}}}, "2,4"},
		{"NOT UID", imap.SearchCriteria{Not: []imap.SearchCriteria{{UID: []imap.UIDSet{imap.UIDSetNum(1, 2, 3)}}}}, "4:5"},
		{"nothing", imap.SearchCriteria{Text: []string{"nowhere"}}, ""},
	} {
		data := search(test.criteria, imap.SearchOptions{ReturnAll: true})
		got := ""
		if data.All != nil {
			got = data.All.String()
		}
		wantEqual(t, "SEARCH "+test.what, got, test.want)
	}
	data := search(imap.SearchCriteria{NotFlag: []imap.Flag{imap.FlagSeen}}, imap.SearchOptions{ReturnMin: true, ReturnMax: true, ReturnCount: true})
	wantEqual(t, "ESEARCH", fmt.Sprint(data.Min, data.Max, data.Count), "2 5 4")
	raw := login(t, s.imap, "ada") // imapclient has "$" but does not send SAVE
	raw.ok("SELECT Life")
	raw.ok("UID SEARCH RETURN (SAVE) TEXT number")
	raw.ok("UID STORE $ +FLAGS.SILENT (Saved)")
	if found := raw.ok("UID SEARCH $ UID 4:*"); !slices.Contains(found, "* SEARCH 4 5") {
		t.Errorf("UID SEARCH $ UID 4:* found %q", found)
	}
	raw.ok("LOGOUT")
	must(t, c.Noop().Wait())
	data = search(imap.SearchCriteria{Flag: []imap.Flag{"Saved"}}, imap.SearchOptions{ReturnAll: true})
	wantEqual(t, "the messages of SEARCH RETURN (SAVE)", data.All, imap.UIDSet{{Start: 2, Stop: 5}})

	// STORE, COPY, MOVE, EXPUNGE
	stored, err := c.Store(imap.SeqSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsSet, Flags: []imap.Flag{imap.FlagAnswered, "Other"}}, nil).Collect()
	must(t, err)
	wantEqual(t, "STORE", len(stored), 1)
	copied, err := c.Copy(imap.UIDSetNum(1, 3), "Life.Ärger").Wait()
	must(t, err)
	wantEqual(t, "COPYUID", fmt.Sprint(copied.SourceUIDs, copied.DestUIDs), "1,3 1:2")
	moved, err := c.Move(imap.UIDSetNum(2), "Life.Ärger").Wait()
	must(t, err)
	wantEqual(t, "MOVE", fmt.Sprint(moved.SourceUIDs, moved.DestUIDs), "2 3")
	store(t, c, imap.UIDSetNum(3, 4), imap.StoreFlagsAdd, imap.FlagDeleted)
	expunged, err := c.UIDExpunge(imap.UIDSetNum(4, 5)).Collect()
	must(t, err)
	wantEqual(t, "UID EXPUNGE", expunged, []uint32{3})
	expunged, err = c.Expunge().Collect()
	must(t, err)
	wantEqual(t, "EXPUNGE", expunged, []uint32{2})
	wantEqual(t, "messages", len(messages(t, c, "Life")), 2)
	for i, m := range messages(t, c, "Life.Ärger") {
		wantEqual(t, "a copy", fmt.Sprint(m.uid, m.flags), []string{`1[Other \Answered]`, "2[Saved]", "3[Saved]"}[i])
	}

	// IDLE
	i := idle(t, s, "ada", "Life")
	appendMail(t, c, "Life", "Subject: news\r\n\r\n", nil)
	i.wantExists(t, 3)

	// RENAME, DELETE
	must(t, c.Unselect().Wait())
	must(t, c.Rename("Life", "Afterlife", nil).Wait())
	wantEqual(t, "LIST after RENAME", listed(t, c, "*life*", nil), "Afterlife [\\HasChildren]\nAfterlife.Ärger [\\HasNoChildren]")
	renamed, err := c.Select("Afterlife", nil).Wait()
	must(t, err)
	wantEqual(t, "UIDVALIDITY after RENAME", renamed.UIDValidity, sel.UIDValidity)
	must(t, c.UnselectAndExpunge().Wait())
	must(t, c.Rename("INBOX", "Was inbox", nil).Wait())
	must(t, c.Delete("Was inbox").Wait())
	wantRefusal(t, "DELETE INBOX", c.Delete("INBOX").Wait(), "CANNOT")
	must(t, c.Delete("Afterlife.Ärger").Wait())
	must(t, c.Delete("Afterlife").Wait())
	_, err = c.Select("Afterlife", nil).Wait()
	wantRefusal(t, "SELECT of what was deleted", err, imap.ResponseCodeNonExistent)
	must(t, c.Create("Afterlife", nil).Wait())
	again, err := c.Select("Afterlife", nil).Wait()
	must(t, err)
	if again.UIDValidity <= sel.UIDValidity || again.NumMessages != 0 {
		t.Errorf("a mailbox made again has %d messages and UIDVALIDITY %d; the old one had %d", again.NumMessages, again.UIDValidity, sel.UIDValidity)
	}

	// UNAUTHENTICATE
	must(t, c.Unauthenticate().Wait())
	if _, err := c.Select("INBOX", nil).Wait(); err == nil {
		t.Error("SELECT after UNAUTHENTICATE")
	}
	must(t, c.Login("ben", "pass").Wait())
	wantEqual(t, "another user's LIST", listed(t, c, "*", nil), "INBOX [\\HasNoChildren]\nSent [\\HasNoChildren \\Sent]")
	must(t, c.Logout().Wait())
}
