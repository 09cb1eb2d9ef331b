package kubernetes_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// A load asks for tokens all the time, and keeps every answer that is none.
type load struct {
	a    *harness.Authserver
	stop chan struct{}
	done sync.WaitGroup

	mu    sync.Mutex
	asked int
	lost  []lost
}

// lost is a request that got no token.
type lost struct {
	at  time.Time
	who string
	err error
}

func (l lost) String() string {
	return fmt.Sprintf("%s %s: %v", l.at.Format("15:04:05.000"), l.who, l.err)
}

// under runs what is done to a server while clients ask it for tokens. Not one may be left without.
func under(t *testing.T, what string, a *harness.Authserver, user, password string, do func()) {
	t.Helper()
	all := lostUnder(t, what, a, user, password, do)
	for _, l := range all[:min(5, len(all))] {
		t.Errorf("lost: %s", l)
	}
}

// lostUnder is what clients lose: some of them keep their connections, some make a new one each time; some of them are nobody,
// some have a password.
func lostUnder(t *testing.T, what string, a *harness.Authserver, user, password string, do func()) []lost {
	t.Helper()
	l := &load{a: a, stop: make(chan struct{})}
	for i := range 8 {
		name, secret := user, password
		if i%4 >= 2 {
			name, secret = "", ""
		}
		client := &http.Client{
			Timeout:   10 * time.Second,
			Transport: &http.Transport{DisableKeepAlives: i%2 == 0},
		}
		l.done.Add(1)
		go func() {
			defer l.done.Done()
			defer client.CloseIdleConnections()
			for {
				select {
				case <-l.stop:
					return
				case <-time.After(20 * time.Millisecond):
				}
				err := l.ask(client, name, secret)
				l.mu.Lock()
				l.asked++
				if err != nil {
					l.lost = append(l.lost, lost{time.Now(), fmt.Sprintf("%q, kept connection %t", name, i%2 != 0), err})
				}
				l.mu.Unlock()
			}
		}()
	}
	began := time.Now()
	time.Sleep(time.Second)
	do()
	time.Sleep(time.Second)
	close(l.stop)
	l.done.Wait()
	t.Logf("%s: %d requests in %s, %d lost", what, l.asked, since(began), len(l.lost))
	if l.asked < 500 {
		t.Errorf("%d requests are no load", l.asked)
	}
	return l.lost
}

func (l *load) ask(client *http.Client, user, password string) error {
	query := url.Values{"service": {l.a.Service}, "scope": {"repository:public/app:pull"}}
	request, err := http.NewRequest("GET", l.a.URL+"/token?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	if user != "" {
		request.SetBasicAuth(user, password)
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	var answer struct{ Token string }
	if response.StatusCode != http.StatusOK || json.Unmarshal(body, &answer) != nil || answer.Token == "" {
		return fmt.Errorf("status %d: %.200s", response.StatusCode, body)
	}
	return nil
}
